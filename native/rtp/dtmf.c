#include "rtp.h"

#define FRAME 160
#define TONE_FRAMES 8  /* 160 ms: RFC 4733 leaves it open; carriers want at least 40-100 ms */
#define END_FRAMES 3   /* RFC 4733 §2.5.1.4: the final packet is sent three times in all */
#define PAUSE_FRAMES 4 /* 80 ms */
#define VOLUME 10      /* -10 dBm0 */
#define OLD_SAMPLES 80000

static const char DIGITS[] = "0123456789*#ABCD";

/* RFC 4733 §2.5.1.3: an event longer than 0xffff samples goes on in a new segment, which begins
 * where the last one ended and carries no marker. It is the same key still held. */
static bool is_next_segment(const struct dtmf_receiver *r, const struct rtp_packet *p) {
    return !p->marker && !r->ended && r->duration == 0xffff && r->event == p->payload[0] &&
           p->timestamp == r->timestamp + 0xffff;
}

static bool is_known(const struct dtmf_receiver *r, const struct rtp_packet *p) {
    int32_t ahead = (int32_t)(p->timestamp - r->timestamp);
    if (!r->heard || r->ssrc != p->ssrc)
        return false;
    /* An update or retransmission has the event's own timestamp; a reordered one an older. A far
     * older one is a sender whose clock started anew. */
    return ahead <= 0 && ahead > -OLD_SAMPLES;
}

/* The digit is told with its first packet seen, whichever that is: no packet of it, the end
 * included, is needed for it to count (RFC 4733 §2.6: any of them may be lost). */
int dtmf_receive(struct dtmf_receiver *r, const struct rtp_packet *p) {
    bool fresh;
    if (p->payload_length < 4)
        return -1;
    if (is_known(r, p) && p->timestamp != r->timestamp)
        return 0;
    fresh = !is_known(r, p) && !is_next_segment(r, p);
    r->heard = true;
    r->ssrc = p->ssrc;
    r->timestamp = p->timestamp;
    r->event = p->payload[0];
    r->ended = p->payload[1] >> 7;
    r->duration = (uint16_t)(p->payload[2] << 8 | p->payload[3]);
    return fresh && r->event < 16 ? DIGITS[r->event] : 0;
}

int dtmf_sender_load(struct dtmf_sender *s, const char *digits, size_t count, uint32_t token) {
    s->count = 0; /* also where nothing follows: that is how digits are called off */
    s->at = 0;
    s->frame = 0;
    s->token = token;
    if (count > sizeof s->digits)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const char *found = digits[i] ? strchr(DIGITS, digits[i]) : NULL;
        if (found == NULL)
            return -1;
        s->digits[i] = (char)(found - DIGITS);
    }
    s->count = (uint8_t)count;
    return count ? 0 : -1;
}

bool dtmf_sender_busy(const struct dtmf_sender *s) { return s->at < s->count; }

bool dtmf_sender_next(struct dtmf_sender *s, uint32_t now, uint8_t *payload,
                      struct rtp_packet *packet) {
    unsigned frame = s->frame++;
    unsigned elapsed = frame < TONE_FRAMES ? frame + 1 : TONE_FRAMES;
    bool last = frame >= TONE_FRAMES;
    if (frame >= TONE_FRAMES + END_FRAMES) {
        if (s->frame == TONE_FRAMES + END_FRAMES + PAUSE_FRAMES) {
            s->frame = 0;
            s->at++;
        }
        return false;
    }
    if (frame == 0)
        s->timestamp = now; /* RFC 4733 §2.1: one timestamp for all packets of the event */
    payload[0] = (uint8_t)s->digits[s->at];
    payload[1] = (uint8_t)((last ? 0x80 : 0) | VOLUME);
    payload[2] = (uint8_t)((elapsed * FRAME) >> 8);
    payload[3] = (uint8_t)(elapsed * FRAME);
    packet->timestamp = s->timestamp;
    packet->marker = frame == 0; /* RFC 4733 §2.1: the beginning of a new event */
    return true;
}
