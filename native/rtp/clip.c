#include "clip.h"

#include <errno.h>
#include <sys/stat.h>

/* Clips nobody plays are kept up to this much: the next call most likely plays the same one. */
#define KEEP_BYTES (64u << 20)

static void clip_free(struct clip *clip) {
    free(clip->path);
    free(clip->ulaw);
    free(clip->alaw);
    free(clip);
}

/* The longest unused clip nobody plays. */
static struct clip **oldest_idle(struct clip_cache *cache) {
    struct clip **oldest = NULL;
    for (struct clip **at = &cache->clips; *at; at = &(*at)->next)
        if (atomic_load(&(*at)->references) == 0 &&
            (oldest == NULL || (*at)->used_at < (*oldest)->used_at))
            oldest = at;
    return oldest;
}

static void evict(struct clip_cache *cache, size_t keep) {
    while (cache->bytes > keep) {
        struct clip **at = oldest_idle(cache);
        struct clip *clip;
        if (at == NULL)
            return;
        clip = *at;
        *at = clip->next;
        cache->bytes -= 2 * clip->length;
        clip_free(clip);
    }
}

static struct clip *encode(const char *path, int *error) {
    size_t count = 0;
    int16_t *samples = wav_read(path, &count, error);
    struct clip *clip;
    if (samples == NULL)
        return NULL;
    clip = calloc(1, sizeof *clip);
    if (clip) {
        clip->length = count;
        clip->path = strdup(path);
        clip->ulaw = malloc(count + 1);
        clip->alaw = malloc(count + 1);
    }
    if (clip && clip->path && clip->ulaw && clip->alaw) {
        g711_encode_ulaw(samples, clip->ulaw, count);
        g711_encode_alaw(samples, clip->alaw, count);
    } else {
        *error = ENOMEM;
        if (clip)
            clip_free(clip);
        clip = NULL;
    }
    free(samples);
    return clip;
}

static struct clip *find(struct clip_cache *cache, const char *path, const struct stat *st) {
    int64_t mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
    struct clip *clip = cache->clips;
    while (clip && !(clip->mtime_ns == mtime_ns && clip->size == st->st_size &&
                     strcmp(clip->path, path) == 0))
        clip = clip->next;
    return clip;
}

struct clip *clip_get(struct clip_cache *cache, const char *path, int *error) {
    struct stat st;
    struct clip *clip;
    if (stat(path, &st) != 0) {
        *error = errno;
        return NULL;
    }
    clip = find(cache, path, &st);
    if (clip == NULL) {
        clip = encode(path, error);
        if (clip == NULL)
            return NULL;
        clip->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
        clip->size = st.st_size;
        clip->next = cache->clips;
        cache->clips = clip;
        cache->bytes += 2 * clip->length;
    }
    clip->used_at = ++cache->clock;
    atomic_fetch_add(&clip->references, 1);
    evict(cache, KEEP_BYTES);
    return clip;
}

void clip_put(struct clip *clip) { atomic_fetch_sub(&clip->references, 1); }

void clip_cache_clear(struct clip_cache *cache) {
    while (cache->clips) {
        struct clip *next = cache->clips->next;
        clip_free(cache->clips);
        cache->clips = next;
    }
    cache->bytes = 0;
}
