#include "rtp.h"

#define RTP_HEADER 12
/* RFC 3550 appendix A.1: a jump larger than this is a sender that started anew. */
#define MAX_DROPOUT 3000

static uint16_t read16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static uint32_t read32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* RFC 3550 §5.1: CSRC list, §5.3.1: extension, then padding whose last byte counts itself. */
static int find_payload(const uint8_t *data, size_t length, size_t *start, size_t *end) {
    size_t at = RTP_HEADER + 4u * (data[0] & 0x0f);
    size_t stop = length;
    if (data[0] & 0x10) {
        if (at + 4 > length)
            return -1;
        at += 4 + 4u * read16(data + at + 2);
    }
    if (at > length)
        return -1;
    if (data[0] & 0x20) {
        size_t padding = data[length - 1];
        if (padding == 0 || padding > length - at)
            return -1;
        stop = length - padding;
    }
    *start = at;
    *end = stop;
    return 0;
}

int rtp_parse(const uint8_t *data, size_t length, struct rtp_packet *packet) {
    size_t start, end;
    if (length < RTP_HEADER || data[0] >> 6 != 2)
        return -1;
    if (find_payload(data, length, &start, &end) != 0)
        return -1;
    packet->payload_type = data[1] & 0x7f;
    packet->marker = data[1] >> 7;
    packet->sequence = read16(data + 2);
    packet->timestamp = read32(data + 4);
    packet->ssrc = read32(data + 8);
    packet->payload = data + start;
    packet->payload_length = end - start;
    return 0;
}

static void write32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

void rtp_write_header(uint8_t *out, const struct rtp_packet *packet) {
    out[0] = 2 << 6;
    out[1] = (uint8_t)((packet->marker ? 0x80 : 0) | (packet->payload_type & 0x7f));
    out[2] = (uint8_t)(packet->sequence >> 8);
    out[3] = (uint8_t)packet->sequence;
    write32(out + 4, packet->timestamp);
    write32(out + 8, packet->ssrc);
}

static void source_begin(struct rtp_source *s, const struct rtp_packet *p, uint32_t now) {
    s->lost_before = rtp_source_lost(s);
    s->heard = true;
    s->ssrc = p->ssrc;
    s->highest = p->sequence;
    s->cycles = 0;
    s->base = p->sequence;
    s->received = 1;
    s->transit = now - p->timestamp;
}

void rtp_source_update(struct rtp_source *s, const struct rtp_packet *p, uint32_t now) {
    uint16_t ahead = (uint16_t)(p->sequence - s->highest);
    uint32_t transit, change;
    bool jumped = ahead >= MAX_DROPOUT && ahead < 0x10000 - MAX_DROPOUT;
    if (!s->heard || s->ssrc != p->ssrc || jumped) {
        source_begin(s, p, now);
        return;
    }
    if (ahead < MAX_DROPOUT) {
        if (p->sequence < s->highest)
            s->cycles += 0x10000;
        s->highest = p->sequence;
    }
    s->received++;
    transit = now - p->timestamp;
    change = transit - s->transit;
    s->transit = transit;
    if ((int32_t)change < 0)
        change = 0u - change;
    if (change > 8000) /* a timestamp jump (DTMF, hold) is not jitter */
        return;
    s->jitter_x16 += change - ((s->jitter_x16 + 8) >> 4);
}

uint32_t rtp_source_lost(const struct rtp_source *s) {
    uint32_t expected;
    if (!s->heard)
        return s->lost_before;
    expected = s->cycles + s->highest - s->base + 1;
    /* Duplicates may make it negative: RFC 3550 appendix A.3. */
    return s->lost_before + (expected > s->received ? expected - s->received : 0);
}
