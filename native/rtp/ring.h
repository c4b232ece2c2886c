/* A queue between exactly two threads, without locks: nobody waits for a thread that keeps time. */
#ifndef OUTSPOOL_RING_H
#define OUTSPOOL_RING_H

#include "rtp.h"

struct ring {
    uint8_t *items;
    size_t item_size;
    uint32_t mask;
    atomic_uint head; /* written by the producer */
    uint8_t apart[64]; /* on another cache line: the two threads are on two cores */
    atomic_uint tail; /* written by the consumer */
};

/* Room for at least ``capacity`` items; 0, or -1 without memory. */
static inline int ring_init(struct ring *ring, size_t item_size, uint32_t capacity) {
    uint32_t size = 16;
    while (size < capacity)
        size *= 2;
    ring->items = calloc(size, item_size);
    ring->item_size = item_size;
    ring->mask = size - 1;
    atomic_init(&ring->head, 0);
    atomic_init(&ring->tail, 0);
    return ring->items ? 0 : -1;
}

static inline uint32_t ring_free(struct ring *ring) {
    return ring->mask + 1 - (atomic_load_explicit(&ring->head, memory_order_relaxed) -
                             atomic_load_explicit(&ring->tail, memory_order_acquire));
}

static inline bool ring_push(struct ring *ring, const void *item) {
    unsigned head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (ring_free(ring) == 0)
        return false;
    memcpy(ring->items + (head & ring->mask) * ring->item_size, item, ring->item_size);
    /* Sequentially consistent: pairs with the idle flag of a thread about to sleep. */
    atomic_store(&ring->head, head + 1);
    return true;
}

static inline bool ring_empty(struct ring *ring) {
    return atomic_load(&ring->head) == atomic_load_explicit(&ring->tail, memory_order_relaxed);
}

static inline bool ring_pop(struct ring *ring, void *item) {
    unsigned tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    if (atomic_load_explicit(&ring->head, memory_order_acquire) == tail)
        return false;
    memcpy(item, ring->items + (tail & ring->mask) * ring->item_size, ring->item_size);
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return true;
}

#endif
