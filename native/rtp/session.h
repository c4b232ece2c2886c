/* One leased port: what is sent, what is received. Belongs to one RTP thread. */
#ifndef OUTSPOOL_SESSION_H
#define OUTSPOOL_SESSION_H

#include "clip.h"
#include "recorder.h"

/* A control message on its way to an RTP thread. */
struct command {
    uint8_t kind;
    uint32_t index;
    uint32_t generation;
    uint32_t token;
    union {
        uint32_t dead_after_ms;
        struct rtp_msg_connect connect;
        struct clip *clip;
        struct recorder *recorder;
        char digits[RTP_MAX_DTMF];
    } u;
    uint8_t count;
};

struct session {
    struct session *next;
    struct session *previous;
    int fd;
    uint32_t index;
    uint32_t generation;
    uint8_t slot;
    bool leased;
    bool connected;
    bool sending;
    bool marker;      /* the next packet begins a talkspurt: RFC 3551 §4.1 */
    bool sdp_heard;   /* the announced address itself has sent: no latching any more */
    uint8_t payload_type;
    uint8_t dtmf_send;
    uint8_t dtmf_receive;
    uint16_t sequence;
    uint32_t ssrc;
    uint32_t timestamp_base;
    uint64_t frame; /* of the last turn, 20 ms each, counted by the thread */
    struct sockaddr_in announced;
    struct sockaddr_in remote;
    const struct clip *clip;
    size_t position;
    uint32_t play_token;
    struct dtmf_sender dtmf_out;
    struct dtmf_receiver dtmf_in;
    struct rtp_source source;
    struct recorder *recorder;
    uint32_t dead_after_ms;
    uint64_t alive_at_us;
    bool dead_told;
    struct rtp_port_stats *stats;
};

struct worker;

void session_command(struct worker *worker, struct session *session, struct command *command);
/* One turn: take what came, send one frame. ``due_us`` is when it should have happened. */
void session_turn(struct worker *worker, struct session *session, uint64_t due_us);
void session_receive(struct worker *worker, struct session *session, uint64_t now_us);
void session_send(struct worker *worker, struct session *session, uint64_t due_us);
void session_drain(struct session *session);

#endif
