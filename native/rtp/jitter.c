#include "rtp.h"

#define SIZE 8192
#define MASK (SIZE - 1)
#define DELAY 800 /* 100 ms: survives the jitter of public networks; nobody listens live */

static void restart(struct jitter_buffer *b, uint32_t ssrc, uint32_t timestamp) {
    memset(b->samples, 0, sizeof b->samples);
    b->started = true;
    b->ssrc = ssrc;
    b->read_at = timestamp - DELAY;
    b->end_at = timestamp;
}

void jitter_write(struct jitter_buffer *b, uint32_t ssrc, uint32_t timestamp,
                  const int16_t *samples, size_t count) {
    int32_t ahead = (int32_t)(timestamp - b->read_at);
    bool far = ahead < -SIZE || ahead + (int32_t)count > SIZE;
    if (count > SIZE - DELAY)
        return;
    if (!b->started || b->ssrc != ssrc || far)
        restart(b, ssrc, timestamp);
    else if (ahead < 0) {
        b->late++;
        return;
    }
    for (size_t i = 0; i < count; i++)
        b->samples[(timestamp + i) & MASK] = samples[i];
    if ((int32_t)(timestamp + (uint32_t)count - b->end_at) > 0)
        b->end_at = timestamp + (uint32_t)count;
}

void jitter_read(struct jitter_buffer *b, int16_t *out) {
    if (!b->started) {
        memset(out, 0, RTP_FRAME * sizeof *out);
        return;
    }
    for (uint32_t i = 0; i < RTP_FRAME; i++) {
        int16_t *sample = &b->samples[(b->read_at + i) & MASK];
        out[i] = *sample;
        *sample = 0; /* the next lap must not hear this one */
    }
    b->read_at += RTP_FRAME;
}

size_t jitter_left(const struct jitter_buffer *b) {
    int32_t left = (int32_t)(b->end_at - b->read_at);
    return b->started && left > 0 ? (size_t)left : 0;
}
