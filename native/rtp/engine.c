#include <errno.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"

#define RECEIVE_BUFFER (128 * 1024)  /* the kernel doubles it: about six seconds of G.711 */
#define EXPEDITED_FORWARDING 0xb8    /* RFC 3246; what networks expect of voice */
#define INBOX_PER_PORT 8
#define EVENTS_PER_PORT 16

/* -1 where the port is not to be had; somebody else's, most likely. */
static int bind_port(const struct rtp_config *config, uint32_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int buffer = RECEIVE_BUFFER, tos = EXPEDITED_FORWARDING;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    memcpy(&address.sin_addr, config->ip, 4);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    /* Neither matters enough to do without the port. */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    (void)setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof tos);
    return fd;
}

/* RTP takes the even ports: RFC 3550 §11. All are bound before the first call, none later. */
static uint32_t bind_ports(const struct rtp_config *config, struct rtp_shared *shared,
                           struct session *sessions) {
    uint32_t bound = 0;
    for (uint32_t i = 0; i < shared->ports; i++) {
        uint32_t port = ((config->port_min + 1) & ~1u) + 2 * i;
        sessions[i].index = i;
        sessions[i].stats = &shared->port[i];
        sessions[i].fd = bind_port(config, port);
        shared->port[i].port = sessions[i].fd < 0 ? 0 : port;
        bound += sessions[i].fd >= 0;
    }
    return bound;
}

static uint32_t even_ports(const struct rtp_config *config) {
    uint32_t first = (config->port_min + 1) & ~1u;
    uint32_t count;
    if (config->port_max > 65535 || first == 0 || first > config->port_max)
        return 0;
    count = (config->port_max - first) / 2 + 1;
    return count < RTP_MAX_PORTS ? count : RTP_MAX_PORTS;
}

static int start_worker(struct control *c, uint32_t i, struct session *sessions, bool realtime) {
    struct worker *w = &c->workers[i];
    uint32_t share = c->shared->ports / c->worker_count + 1;
    w->sessions = sessions;
    w->stats = &c->shared->thread[i];
    w->notify_fd = c->notify_fd;
    w->realtime_wanted = realtime;
    if (ring_init(&w->inbox, sizeof(struct command), share * INBOX_PER_PORT) != 0 ||
        ring_init(&w->events, sizeof(struct rtp_event), share * EVENTS_PER_PORT) != 0)
        return ENOMEM;
    return worker_start(w);
}

/* Waits for every thread and every recording to be complete. */
static void stop_all(struct control *c, uint32_t started) {
    for (uint32_t i = 0; i < started; i++)
        worker_stop(&c->workers[i]);
    recorder_thread_stop(&c->recorders);
    clip_cache_clear(&c->clips);
    for (uint32_t i = 0; i < c->worker_count; i++) {
        free(c->workers[i].inbox.items);
        free(c->workers[i].events.items);
    }
}

static int serve(struct control *c, const struct rtp_config *config, struct session *sessions) {
    uint32_t started = 0;
    int error = recorder_thread_start(&c->recorders, c->notify_fd) ? ENOMEM : 0;
    if (error)
        return error;
    while (!error && started < c->worker_count) {
        error = start_worker(c, started, sessions, config->realtime);
        started += !error;
    }
    if (!error)
        error = control_run(c);
    stop_all(c, started);
    return error;
}

static int run_bound(struct control *c, const struct rtp_config *config) {
    struct session *sessions = calloc(c->shared->ports, sizeof *sessions);
    int error = ENOMEM;
    c->workers = calloc(c->worker_count, sizeof *c->workers);
    c->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (sessions && c->workers && c->notify_fd >= 0 &&
        ring_init(&c->own_events, sizeof(struct rtp_event), 4 * c->shared->ports + 64) == 0)
        error = bind_ports(config, c->shared, sessions) ? serve(c, config, sessions) : EADDRINUSE;
    for (uint32_t i = 0; sessions && i < c->shared->ports; i++)
        if (sessions[i].fd > 0)
            close(sessions[i].fd);
    close(c->notify_fd);
    free(c->own_events.items);
    free(c->workers);
    free(sessions);
    return error;
}

int rtp_engine_run(const struct rtp_config *config, struct rtp_shared *shared) {
    struct control *control;
    int error;
    if (config->threads < 1 || config->threads > RTP_MAX_THREADS || even_ports(config) == 0)
        return EINVAL;
    control = calloc(1, sizeof *control);
    if (control == NULL)
        return ENOMEM;
    g711_init();
    memset(shared, 0, sizeof *shared);
    shared->magic = RTP_MAGIC;
    shared->threads = config->threads;
    shared->ports = even_ports(config);
    control->fd = config->control_fd;
    control->parent_pid = config->parent_pid;
    control->shared = shared;
    control->worker_count = config->threads;
    error = run_bound(control, config);
    free(control);
    return error;
}
