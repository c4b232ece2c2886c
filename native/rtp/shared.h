/* What the engine process and its parent both know: the layout of the shared memory, the limits
 * and the numbers of the control messages. Read by the C compiler and by cffi's cdef alike, so
 * there is one definition only; hence no preprocessor beyond plain numbers. */

#define RTP_MAGIC 0x4f525450
#define RTP_MAX_THREADS 32
#define RTP_MAX_PORTS 16384
#define RTP_LATE_BINS 1000
#define RTP_LATE_BIN_US 100
#define RTP_MAX_MESSAGE 4200
#define RTP_MAX_PATH 4096
#define RTP_MAX_DTMF 32
#define RTP_NO_PAYLOAD_TYPE 255

/* Parent -> engine. Every message: rtp_message, then what the kind adds. */
#define RTP_CMD_LEASE 1
#define RTP_CMD_CONNECT 2
#define RTP_CMD_PLAY 3
#define RTP_CMD_STOP 4
#define RTP_CMD_DTMF 5
#define RTP_CMD_RECORD 6
#define RTP_CMD_RECORD_STOP 7
#define RTP_CMD_RELEASE 8

/* Engine -> parent: always one rtp_event. */
#define RTP_EV_READY 1
#define RTP_EV_PLAYED 2
#define RTP_EV_PLAY_FAILED 3
#define RTP_EV_DIGIT 4
#define RTP_EV_DTMF_SENT 5
#define RTP_EV_DEAD 6
#define RTP_EV_RECORDED 7
#define RTP_EV_RECORD_FAILED 8

/* ``length`` counts the whole message; numbers are in host order (one machine, one build). */
struct rtp_message {
    uint16_t length;
    uint8_t kind;
    uint8_t reserved;
    uint32_t index;      /* which port */
    uint32_t generation; /* which lease of it */
};

struct rtp_msg_lease {
    struct rtp_message head;
    uint32_t dead_after_ms; /* 0 = never */
};

struct rtp_msg_connect {
    struct rtp_message head;
    uint8_t ip[4];
    uint16_t port;
    uint8_t payload_type;
    uint8_t dtmf_send;    /* telephone-event type the far end asked for */
    uint8_t dtmf_receive; /* the one we offered */
    uint8_t send;
    uint8_t reserved[2];
};

/* Followed by a path (PLAY, RECORD) or by digits (DTMF), neither terminated. */
struct rtp_msg_text {
    struct rtp_message head;
    uint32_t token;
};

struct rtp_event {
    uint8_t kind;
    uint8_t arg; /* the digit, or an errno */
    uint16_t reserved;
    uint32_t index;
    uint32_t generation;
    uint32_t token;
};

/* One port; written by its RTP thread only. Counters restart with each lease. */
struct rtp_port_stats {
    uint32_t generation;
    uint32_t sent;
    uint32_t received;
    uint32_t lost;       /* RFC 3550 appendix A.3 */
    uint32_t foreign;    /* not from the far end: dropped */
    uint32_t malformed;  /* no RTP, or a payload type nobody agreed on: dropped */
    uint32_t send_errors;
    uint32_t jitter;     /* RFC 3550 appendix A.8, in samples */
    uint32_t late_max_us;
    uint32_t digits;
    uint32_t latched;    /* 1 = the far end sends from another port than it announced */
    uint32_t record_overruns;
    uint32_t port;       /* UDP port, 0 = could not be bound */
    uint32_t reserved[3];
};

/* One RTP thread, since the start of the process. */
struct rtp_thread_stats {
    uint64_t ticks;
    uint64_t sent;
    uint64_t received;
    uint64_t lost; /* of leases already released */
    uint64_t foreign;
    uint64_t malformed;
    uint64_t send_errors;
    uint64_t digits_dropped;
    uint64_t stalls; /* times the thread was so late that it skipped frames */
    uint32_t sessions;
    uint32_t realtime; /* 1 = SCHED_FIFO granted */
    uint64_t late_max_us;
    uint64_t late[1000];
};

struct rtp_shared {
    uint32_t magic;
    uint32_t ports;
    uint32_t threads;
    uint32_t heartbeat; /* counts up a few times a second while the control loop lives */
    struct rtp_thread_stats thread[32];
    struct rtp_port_stats port[16384];
};
