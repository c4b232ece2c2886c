#include <sys/socket.h>

#include "worker.h"

#define ULAW_SILENCE 0xff
#define ALAW_SILENCE 0xd5
#define PCMA 8

/* The next frame of the clip, or silence. Silence is always sent while a call is connected: it
 * opens NATs, lets the far end latch on us, and spares it the gaps that some take for a dead call. */
static size_t next_audio(struct session *s, uint8_t *out, bool pause) {
    bool alaw = s->payload_type == PCMA;
    size_t count = 0;
    if (s->clip && !pause) {
        const uint8_t *from = alaw ? s->clip->alaw : s->clip->ulaw;
        count = s->clip->length - s->position;
        if (count > RTP_FRAME)
            count = RTP_FRAME;
        memcpy(out, from + s->position, count);
    }
    memset(out + count, alaw ? ALAW_SILENCE : ULAW_SILENCE, RTP_FRAME - count);
    return count;
}

static void note_lateness(struct worker *w, struct session *s, uint64_t due_us) {
    uint64_t now = now_us();
    uint64_t late = now > due_us ? now - due_us : 0;
    uint64_t bin = late / RTP_LATE_BIN_US;
    w->stats->late[bin < RTP_LATE_BINS ? bin : RTP_LATE_BINS - 1]++;
    if (late > w->stats->late_max_us)
        w->stats->late_max_us = late;
    if (late > s->stats->late_max_us)
        s->stats->late_max_us = (uint32_t)late;
}

static void emit(struct worker *w, struct session *s, const uint8_t *data, size_t length) {
    ssize_t sent = sendto(s->fd, data, length, 0, (struct sockaddr *)&s->remote, sizeof s->remote);
    s->sequence++; /* RFC 3550 §5.1: a packet the network lost has used its number too */
    s->marker = false;
    if (sent == (ssize_t)length) {
        s->stats->sent++;
        w->stats->sent++;
    } else {
        s->stats->send_errors++;
        w->stats->send_errors++;
    }
}

static void finish_clip(struct worker *w, struct session *s) {
    clip_put((struct clip *)s->clip);
    s->clip = NULL;
    worker_event(w, s, RTP_EV_PLAYED, 0, s->play_token);
}

static size_t audio_packet(struct session *s, struct rtp_packet *packet, uint8_t *out, bool pause) {
    size_t played = next_audio(s, out + 12, pause);
    packet->payload_type = s->payload_type;
    packet->marker = s->marker;
    rtp_write_header(out, packet);
    s->position += played;
    return 12 + RTP_FRAME;
}

/* While digits are sent, the clip waits: nothing of it may be lost. */
static size_t dtmf_packet(struct worker *w, struct session *s, struct rtp_packet *packet,
                          uint8_t *out) {
    uint32_t now = packet->timestamp;
    bool tone = dtmf_sender_next(&s->dtmf_out, now, out + 12, packet);
    if (!dtmf_sender_busy(&s->dtmf_out))
        worker_event(w, s, RTP_EV_DTMF_SENT, 0, s->dtmf_out.token);
    if (!tone)
        return 0;
    packet->payload_type = s->dtmf_send;
    rtp_write_header(out, packet);
    return 16;
}

void session_send(struct worker *w, struct session *s, uint64_t due_us) {
    uint8_t out[12 + RTP_FRAME];
    size_t length = 0;
    /* The clock runs through holds and skipped turns: RFC 3550 §5.1, timestamps count time. */
    struct rtp_packet packet = {.sequence = s->sequence, .ssrc = s->ssrc,
                                .timestamp = s->timestamp_base + (uint32_t)s->frame * RTP_FRAME};
    bool dialling = dtmf_sender_busy(&s->dtmf_out) && s->dtmf_send != RTP_NO_PAYLOAD_TYPE;
    if (dialling)
        length = dtmf_packet(w, s, &packet, out);
    if (length == 0)
        length = audio_packet(s, &packet, out, dialling);
    emit(w, s, out, length);
    note_lateness(w, s, due_us);
    if (s->clip && s->position >= s->clip->length)
        finish_clip(w, s);
}
