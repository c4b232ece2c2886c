/* RTP packets: RFC 3550 §5.1. */

struct rtp_packet {
    uint8_t payload_type;
    bool marker;
    uint16_t sequence;
    uint32_t timestamp;
    uint32_t ssrc;
    const uint8_t *payload;
    size_t payload_length;
};

/* What one source sent so far: RFC 3550 §6.4.1, appendix A.1, A.3 and A.8. */
struct rtp_source {
    bool heard;
    uint32_t ssrc;
    uint16_t highest;
    uint32_t cycles;
    uint32_t base;
    uint32_t received;
    uint32_t lost_before; /* of earlier sources of the same session */
    uint32_t transit;
    uint32_t jitter_x16;
};

/* 0, or -1 where the bytes are no RTP packet. The view points into ``data``. */
int rtp_parse(const uint8_t *data, size_t length, struct rtp_packet *packet);
/* Twelve bytes into ``out``. */
void rtp_write_header(uint8_t *out, const struct rtp_packet *packet);
/* Count a packet; ``now`` is the arrival time in samples of the media clock. */
void rtp_source_update(struct rtp_source *source, const struct rtp_packet *packet, uint32_t now);
uint32_t rtp_source_lost(const struct rtp_source *source);
