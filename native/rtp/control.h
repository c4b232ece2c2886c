/* The one thread that talks to the parent: commands in, events out, over one stream. */
#ifndef OUTSPOOL_CONTROL_H
#define OUTSPOOL_CONTROL_H

#include "worker.h"

#define CONTROL_IN 65536
#define CONTROL_OUT_EVENTS 4096

struct control {
    int fd;
    int notify_fd;
    int32_t parent_pid;
    struct rtp_shared *shared;
    struct worker *workers;
    uint32_t worker_count;
    struct recorder_thread recorders;
    struct clip_cache clips;
    struct ring own_events; /* of commands that failed before they reached a worker */
    uint8_t in[CONTROL_IN];
    size_t in_length;
    struct rtp_event out[CONTROL_OUT_EVENTS];
    size_t out_length; /* bytes */
    size_t out_sent;
};

/* Serve until the parent is gone (0) or breaks the protocol (EPROTO). */
int control_run(struct control *control);

#endif
