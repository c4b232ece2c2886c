/* A fixed jitter buffer: puts received audio back on a steady clock, for recording. */

struct jitter_buffer {
    int16_t samples[8192]; /* about a second, addressed by RTP timestamp */
    bool started;
    uint32_t ssrc;
    uint32_t read_at; /* timestamp of the next sample to hand out */
    uint32_t end_at;  /* the one after the newest written */
    uint32_t late;    /* packets that came after their turn */
};

/* Lay down decoded audio. */
void jitter_write(struct jitter_buffer *buffer, uint32_t ssrc, uint32_t timestamp,
                  const int16_t *samples, size_t count);
/* The next 20 ms; silence where nothing came. */
void jitter_read(struct jitter_buffer *buffer, int16_t *out);
/* Samples that are still to be read until the newest one. */
size_t jitter_left(const struct jitter_buffer *buffer);
