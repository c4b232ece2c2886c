/* The engine as a whole. */

struct rtp_config {
    uint8_t ip[4];          /* address the ports are bound to */
    uint32_t port_min;
    uint32_t port_max;
    uint32_t threads;       /* 1 .. RTP_MAX_THREADS */
    int control_fd;         /* stream socket to the parent; its end is ours too */
    int32_t parent_pid;     /* we end when it does; 0 = do not look */
    int32_t realtime;       /* ask for SCHED_FIFO */
};

/* Serve until the parent closes the control socket or dies. 0, or an errno if it could not start. */
int rtp_engine_run(const struct rtp_config *config, struct rtp_shared *shared);
