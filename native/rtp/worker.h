/* One RTP thread: a clock of 1 ms ticks, 20 slots, and the sessions that take their turns. */
#ifndef OUTSPOOL_WORKER_H
#define OUTSPOOL_WORKER_H

#include <sys/socket.h>

#include "session.h"

#define RTP_BATCH 8
#define RTP_PACKET 1500

struct worker {
    pthread_t thread;
    struct ring inbox;      /* struct command, from the control thread */
    struct ring events;     /* struct rtp_event, to the control thread */
    struct session *sessions; /* all ports; ours are those of our remainder */
    struct session *slots[RTP_SLOTS];
    uint32_t slot_sizes[RTP_SLOTS];
    uint64_t tick;
    uint64_t base_us;
    uint32_t session_count;
    int timer_fd;
    int wake_fd;            /* the control thread wakes a thread without sessions */
    int notify_fd;          /* tells the control thread of events */
    bool notify;
    bool realtime_wanted;
    atomic_bool idle;
    atomic_bool stop;
    struct rtp_thread_stats *stats;
    struct mmsghdr messages[RTP_BATCH]; /* prepared once, for every recvmmsg */
    struct iovec parts[RTP_BATCH];
    struct sockaddr_in from[RTP_BATCH];
    uint8_t buffers[RTP_BATCH][RTP_PACKET];
};

uint64_t now_us(void);
int worker_start(struct worker *worker);
/* In receive.c: the buffers of recvmmsg. */
void worker_prepare_batch(struct worker *worker);
void worker_wake(struct worker *worker);
void worker_stop(struct worker *worker);
void worker_event(struct worker *worker, const struct session *session, uint8_t kind, uint8_t arg,
                  uint32_t token);

#endif
