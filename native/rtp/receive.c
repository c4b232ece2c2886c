#include <sys/socket.h>

#include "worker.h"

#define MAX_BATCHES 4     /* 32 packets a turn: a flood waits in the kernel and is dropped there */
#define MAX_DIGITS 1024   /* of one lease; nobody types more */
#define PCMU 0
#define PCMA 8
#define COMFORT_NOISE 13

/* Accept audio only from the host that the SDP named, so that nobody else can talk into a call or
 * draw it to himself ("RTP bleed"). The port may differ (NAT, or a far end not symmetric, RFC
 * 4961): the first one heard is taken, unless the announced port itself ever sends. */
static bool from_far_end(struct session *s, const struct sockaddr_in *from) {
    if (!s->connected || from->sin_addr.s_addr != s->announced.sin_addr.s_addr)
        return false;
    if (from->sin_port == s->announced.sin_port) {
        s->sdp_heard = true;
        s->remote.sin_port = from->sin_port;
        s->stats->latched = 0;
        return true;
    }
    if (s->stats->latched)
        return from->sin_port == s->remote.sin_port;
    return !s->sdp_heard;
}

static void latch(struct session *s, const struct sockaddr_in *from) {
    if (from->sin_port == s->remote.sin_port)
        return;
    s->remote.sin_port = from->sin_port;
    s->stats->latched = 1;
}

static void take_audio(struct session *s, const struct rtp_packet *p) {
    int16_t samples[RTP_PACKET];
    if (s->recorder == NULL)
        return;
    if (p->payload_type == PCMU)
        g711_decode_ulaw(p->payload, samples, p->payload_length);
    else
        g711_decode_alaw(p->payload, samples, p->payload_length);
    jitter_write(&s->recorder->jitter, p->ssrc, p->timestamp, samples, p->payload_length);
}

static bool take_event(struct worker *w, struct session *s, const struct rtp_packet *p) {
    int digit = dtmf_receive(&s->dtmf_in, p);
    if (digit > 0 && s->stats->digits < MAX_DIGITS) {
        s->stats->digits++;
        worker_event(w, s, RTP_EV_DIGIT, (uint8_t)digit, 0);
    }
    return digit >= 0;
}

/* Both laws are taken whichever was agreed: a far end may switch within its answer (RFC 3264
 * §6.1), and both payload types are static (RFC 3551 §6). */
static bool take_payload(struct worker *w, struct session *s, const struct rtp_packet *p) {
    if (p->payload_type == PCMU || p->payload_type == PCMA) {
        take_audio(s, p);
        return true;
    }
    if (p->payload_type == s->dtmf_receive || p->payload_type == s->dtmf_send)
        return take_event(w, s, p);
    return p->payload_type == COMFORT_NOISE;
}

static void take_packet(struct worker *w, struct session *s, const uint8_t *data, size_t length,
                        const struct sockaddr_in *from, uint64_t now) {
    struct rtp_packet packet;
    if (!from_far_end(s, from)) {
        s->stats->foreign++;
        w->stats->foreign++;
        return;
    }
    if (rtp_parse(data, length, &packet) != 0 || !take_payload(w, s, &packet)) {
        s->stats->malformed++;
        w->stats->malformed++;
        return;
    }
    latch(s, from);
    rtp_source_update(&s->source, &packet, (uint32_t)(now / 125)); /* µs to samples */
    s->alive_at_us = now;
    s->stats->received++;
    s->stats->lost = rtp_source_lost(&s->source);
    s->stats->jitter = s->source.jitter_x16 >> 4;
    w->stats->received++;
}

void worker_prepare_batch(struct worker *w) {
    for (int i = 0; i < RTP_BATCH; i++) {
        struct msghdr *header = &w->messages[i].msg_hdr;
        w->parts[i] = (struct iovec){w->buffers[i], RTP_PACKET};
        header->msg_name = &w->from[i];
        header->msg_namelen = sizeof w->from[i]; /* the kernel writes back the same */
        header->msg_iov = &w->parts[i];
        header->msg_iovlen = 1;
    }
}

void session_receive(struct worker *w, struct session *s, uint64_t now) {
    for (int batch = 0; batch < MAX_BATCHES; batch++) {
        int count = recvmmsg(s->fd, w->messages, RTP_BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < count; i++) {
            bool whole = !(w->messages[i].msg_hdr.msg_flags & MSG_TRUNC);
            take_packet(w, s, w->buffers[i], whole ? w->messages[i].msg_len : 0, &w->from[i], now);
        }
        if (count < RTP_BATCH)
            return;
    }
}

/* Empty the socket; bounded, or a flood would hold up everybody's turn. */
void session_drain(struct session *s) {
    uint8_t byte;
    for (int i = 0; i < 512 && recv(s->fd, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) >= 0; i++)
        ;
}
