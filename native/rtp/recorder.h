/* Received audio to a file: the RTP thread fills a ring, one thread for all writes to disk. */
#ifndef OUTSPOOL_RECORDER_H
#define OUTSPOOL_RECORDER_H

#include "ring.h"

#define RECORDER_SAMPLES 32768 /* four seconds: how long the disk may stall */

struct recorder {
    struct recorder *next;
    FILE *file;
    uint32_t index;
    uint32_t generation;
    uint32_t token;
    uint32_t written;
    int error;
    bool done; /* writer: closed, and its ring is empty */
    struct jitter_buffer jitter;  /* RTP thread */
    atomic_uint head;             /* samples put in by the RTP thread */
    atomic_uint tail;             /* samples taken out by the writer */
    atomic_bool closed;           /* the RTP thread is done with it */
    int16_t samples[RECORDER_SAMPLES];
};

struct recorder_thread {
    pthread_t thread;
    pthread_mutex_t lock;
    struct recorder *recorders;
    pthread_cond_t wake;
    bool stop;
    struct ring events;
    int notify_fd;
};

/* Open the file; NULL and *error = an errno. */
struct recorder *recorder_open(const char *path, int *error);
/* One 20 ms frame from the jitter buffer to the ring; false = the ring was full, frame lost. */
bool recorder_step(struct recorder *recorder);
/* The RTP thread's last word: drains the jitter buffer and lets go. */
void recorder_close(struct recorder *recorder);

int recorder_thread_start(struct recorder_thread *self, int notify_fd);
void recorder_thread_add(struct recorder_thread *self, struct recorder *recorder);
/* Waits until every closed recorder is on disk. */
void recorder_thread_stop(struct recorder_thread *self);

#endif
