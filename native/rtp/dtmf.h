/* Telephone events: RFC 4733. */

struct dtmf_receiver {
    bool heard;
    bool ended;
    uint8_t event;
    uint16_t duration;
    uint32_t ssrc;
    uint32_t timestamp;
};

struct dtmf_sender {
    char digits[32];
    uint8_t count;
    uint8_t at;
    uint8_t frame;
    uint32_t timestamp;
    uint32_t token;
};

/* The digit that begins with this packet (an ASCII character), 0 = none, -1 = no event at all. */
int dtmf_receive(struct dtmf_receiver *receiver, const struct rtp_packet *packet);
/* Replace what is queued by up to 32 digits; 0, or -1 where there is nothing to send. */
int dtmf_sender_load(struct dtmf_sender *sender, const char *digits, size_t count, uint32_t token);
bool dtmf_sender_busy(const struct dtmf_sender *sender);
/* Advance by one frame at ``now``. True: ``payload`` (4 bytes), timestamp and marker are set and
 * the event is to be sent; false: a pause between two digits, send audio. */
bool dtmf_sender_next(struct dtmf_sender *sender, uint32_t now, uint8_t *payload,
                      struct rtp_packet *packet);
