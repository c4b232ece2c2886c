#include "session.h"

#include <sys/random.h>
#include <sys/socket.h>

#include "worker.h"

#define ALIVE_CHECK_US 1000u

static uint32_t random32(void) {
    uint32_t value = 0;
    if (getrandom(&value, sizeof value, GRND_NONBLOCK) != (ssize_t)sizeof value)
        value = (uint32_t)now_us() * 2654435761u; /* only before the kernel's pool is ready */
    return value;
}

/* Least crowded slot: keeps the turns apart. */
static void link_slot(struct worker *w, struct session *s) {
    uint8_t best = 0;
    for (uint8_t i = 1; i < RTP_SLOTS; i++)
        if (w->slot_sizes[i] < w->slot_sizes[best])
            best = i;
    s->slot = best;
    s->previous = NULL;
    s->next = w->slots[best];
    if (s->next)
        s->next->previous = s;
    w->slots[best] = s;
    w->slot_sizes[best]++;
    w->session_count++;
}

static void unlink_slot(struct worker *w, struct session *s) {
    if (s->previous)
        s->previous->next = s->next;
    else
        w->slots[s->slot] = s->next;
    if (s->next)
        s->next->previous = s->previous;
    w->slot_sizes[s->slot]--;
    w->session_count--;
}

static void stop_playing(struct session *s) {
    if (s->clip)
        clip_put((struct clip *)s->clip);
    s->clip = NULL;
}

static void stop_recording(struct worker *w, struct session *s) {
    if (s->recorder == NULL)
        return;
    session_receive(w, s, now_us()); /* what came since the last turn belongs to it */
    recorder_close(s->recorder);
    s->recorder = NULL;
}

static void release(struct worker *w, struct session *s) {
    stop_playing(s);
    stop_recording(w, s);
    w->stats->lost += rtp_source_lost(&s->source);
    unlink_slot(w, s);
    s->leased = false;
}

/* RFC 3550 §5.1: SSRC, first sequence number and timestamp are random. */
static void lease(struct worker *w, struct session *s, const struct command *c) {
    struct session fresh = {.fd = s->fd, .index = s->index, .stats = s->stats};
    uint32_t port = s->stats->port;
    if (s->leased)
        release(w, s);
    *s = fresh;
    memset(s->stats, 0, sizeof *s->stats);
    s->stats->port = port;
    s->stats->generation = s->generation = c->generation;
    s->leased = true;
    s->dead_after_ms = c->u.dead_after_ms;
    s->ssrc = random32();
    s->timestamp_base = random32();
    s->sequence = (uint16_t)random32();
    s->frame = w->tick / RTP_SLOTS;
    s->marker = true;
    s->dtmf_send = s->dtmf_receive = RTP_NO_PAYLOAD_TYPE;
    session_drain(s); /* what the last call's far end still sent is nobody's audio now */
    link_slot(w, s);
}

static void connect_remote(struct session *s, const struct rtp_msg_connect *m) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(m->port)};
    memcpy(&address.sin_addr, m->ip, 4);
    if (!s->connected || memcmp(&address, &s->announced, sizeof address) != 0) {
        s->announced = s->remote = address;
        s->sdp_heard = false;
        s->stats->latched = 0;
    }
    s->payload_type = m->payload_type;
    s->dtmf_send = m->dtmf_send;
    s->dtmf_receive = m->dtmf_receive;
    s->sending = m->send;
    s->connected = true;
    s->alive_at_us = now_us();
}

static void play(struct session *s, const struct command *c) {
    stop_playing(s);
    s->clip = c->u.clip;
    s->position = 0;
    s->play_token = c->token;
}

static void send_digits(struct worker *w, struct session *s, const struct command *c) {
    if (dtmf_sender_load(&s->dtmf_out, c->u.digits, c->count, c->token) != 0)
        worker_event(w, s, RTP_EV_DTMF_SENT, 0, c->token);
}

/* A command for a lease that is over still owns what it carries. */
static void discard(const struct command *c) {
    if (c->kind == RTP_CMD_PLAY)
        clip_put(c->u.clip);
    if (c->kind == RTP_CMD_RECORD)
        recorder_close(c->u.recorder);
}

void session_command(struct worker *w, struct session *s, struct command *c) {
    if (c->kind == RTP_CMD_LEASE) {
        lease(w, s, c);
        return;
    }
    if (!s->leased || s->generation != c->generation) {
        discard(c);
        return;
    }
    switch (c->kind) {
    case RTP_CMD_CONNECT:
        connect_remote(s, &c->u.connect);
        break;
    case RTP_CMD_PLAY:
        play(s, c);
        break;
    case RTP_CMD_STOP:
        stop_playing(s);
        break;
    case RTP_CMD_DTMF:
        send_digits(w, s, c);
        break;
    case RTP_CMD_RECORD:
        stop_recording(w, s);
        s->recorder = c->u.recorder;
        break;
    case RTP_CMD_RECORD_STOP:
        stop_recording(w, s);
        break;
    case RTP_CMD_RELEASE:
        release(w, s);
        break;
    default: /* the control thread passes on nothing else */
        break;
    }
}

static void record_turn(struct session *s, uint64_t frames) {
    for (uint64_t i = 0; i < frames && i < 50; i++)
        if (!recorder_step(s->recorder))
            s->stats->record_overruns++;
}

/* A far end on hold may be silent by agreement: RFC 3264 §8.4. */
static void check_alive(struct worker *w, struct session *s, uint64_t now) {
    if (!s->sending) {
        s->alive_at_us = now;
        return;
    }
    if (!s->dead_told && now - s->alive_at_us > (uint64_t)s->dead_after_ms * ALIVE_CHECK_US) {
        s->dead_told = true;
        worker_event(w, s, RTP_EV_DEAD, 0, 0);
    }
}

void session_turn(struct worker *w, struct session *s, uint64_t due_us) {
    uint64_t frame = w->tick / RTP_SLOTS;
    session_receive(w, s, due_us);
    if (s->recorder)
        record_turn(s, frame - s->frame);
    s->frame = frame;
    if (s->connected && s->sending)
        session_send(w, s, due_us);
    else
        s->marker = true;
    if (s->connected && s->dead_after_ms)
        check_alive(w, s, due_us);
}
