/* Clips: recordings encoded once, shared by every session that plays them. */
#ifndef OUTSPOOL_CLIP_H
#define OUTSPOOL_CLIP_H

#include "rtp.h"

struct clip {
    struct clip *next;
    char *path;
    int64_t mtime_ns;
    int64_t size;
    uint64_t used_at;
    atomic_uint references; /* RTP threads give theirs back; only the control thread frees */
    size_t length;          /* samples, and bytes of either law */
    uint8_t *ulaw;
    uint8_t *alaw;
};

struct clip_cache {
    struct clip *clips;
    uint64_t clock;
    size_t bytes;
};

/* The clip of a file as it is now, with a reference of the caller's; NULL and *error = an errno. */
struct clip *clip_get(struct clip_cache *cache, const char *path, int *error);
void clip_put(struct clip *clip);
void clip_cache_clear(struct clip_cache *cache);

#endif
