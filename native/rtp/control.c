#include "control.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEARTBEAT_MS 200

static void own_event(struct control *c, const struct command *command, uint8_t kind, int error) {
    struct rtp_event event = {.kind = kind, .arg = (uint8_t)error, .index = command->index,
                              .generation = command->generation, .token = command->token};
    ring_push(&c->own_events, &event);
}

/* The inbox of a worker holds several commands a port; a full one means the worker lags, and the
 * parent is made to wait through the stream's own flow control. */
static void hand_over(struct control *c, const struct command *command) {
    struct worker *worker = &c->workers[command->index % c->worker_count];
    const struct timespec pause = {0, 200000};
    while (!ring_push(&worker->inbox, command))
        nanosleep(&pause, NULL);
    worker_wake(worker);
}

static bool copy_path(char *path, const uint8_t *text, size_t length) {
    if (length == 0 || length >= RTP_MAX_PATH || memchr(text, 0, length))
        return false;
    memcpy(path, text, length);
    path[length] = 0;
    return true;
}

static void take_play(struct control *c, struct command *command, const char *path) {
    int error = 0;
    command->u.clip = clip_get(&c->clips, path, &error);
    if (command->u.clip)
        hand_over(c, command);
    else
        own_event(c, command, RTP_EV_PLAY_FAILED, error);
}

static void take_record(struct control *c, struct command *command, const char *path) {
    int error = 0;
    struct recorder *recorder = recorder_open(path, &error);
    if (recorder == NULL) {
        own_event(c, command, RTP_EV_RECORD_FAILED, error);
        return;
    }
    recorder->index = command->index;
    recorder->generation = command->generation;
    recorder->token = command->token;
    command->u.recorder = recorder;
    recorder_thread_add(&c->recorders, recorder);
    hand_over(c, command);
}

static bool take_text(struct control *c, struct command *command, const uint8_t *data,
                      size_t length) {
    const size_t head = sizeof(struct rtp_msg_text);
    char path[RTP_MAX_PATH];
    struct rtp_msg_text message;
    if (length < head)
        return false;
    memcpy(&message, data, head);
    command->token = message.token;
    if (command->kind == RTP_CMD_DTMF) {
        if (length - head > RTP_MAX_DTMF)
            return false;
        memcpy(command->u.digits, data + head, length - head);
        command->count = (uint8_t)(length - head);
        hand_over(c, command);
        return true;
    }
    if (!copy_path(path, data + head, length - head))
        return false;
    if (command->kind == RTP_CMD_PLAY)
        take_play(c, command, path);
    else
        take_record(c, command, path);
    return true;
}

/* One complete message; false = not of this protocol. */
static bool take_message(struct control *c, const uint8_t *data, size_t length) {
    struct rtp_message head;
    struct rtp_msg_lease lease;
    struct command command = {0};
    memcpy(&head, data, sizeof head);
    command.kind = head.kind;
    command.index = head.index;
    command.generation = head.generation;
    if (head.index >= c->shared->ports)
        return false;
    switch (head.kind) {
    case RTP_CMD_LEASE:
        if (length != sizeof lease)
            return false;
        memcpy(&lease, data, length);
        command.u.dead_after_ms = lease.dead_after_ms;
        break;
    case RTP_CMD_CONNECT:
        if (length != sizeof command.u.connect)
            return false;
        memcpy(&command.u.connect, data, length);
        break;
    case RTP_CMD_PLAY:
    case RTP_CMD_DTMF:
    case RTP_CMD_RECORD:
        return take_text(c, &command, data, length);
    case RTP_CMD_STOP:
    case RTP_CMD_RECORD_STOP:
    case RTP_CMD_RELEASE:
        break;
    default:
        return false;
    }
    hand_over(c, &command);
    return true;
}

static bool take_messages(struct control *c) {
    size_t at = 0;
    while (c->in_length - at >= sizeof(struct rtp_message)) {
        uint16_t length;
        memcpy(&length, c->in + at, sizeof length);
        if (length < sizeof(struct rtp_message) || length > RTP_MAX_MESSAGE)
            return false;
        if (c->in_length - at < length)
            break;
        if (!take_message(c, c->in + at, length))
            return false;
        at += length;
    }
    memmove(c->in, c->in + at, c->in_length - at);
    c->in_length -= at;
    return true;
}

/* 0, or the errno that ends the service; ECONNRESET = the parent is gone. */
static int read_commands(struct control *c) {
    ssize_t n = recv(c->fd, c->in + c->in_length, CONTROL_IN - c->in_length, MSG_DONTWAIT);
    if (n == 0)
        return ECONNRESET;
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : ECONNRESET;
    c->in_length += (size_t)n;
    return take_messages(c) ? 0 : EPROTO;
}

static void collect_ring(struct control *c, struct ring *ring) {
    while (c->out_length < sizeof c->out && ring_pop(ring, &c->out[c->out_length / 16]))
        c->out_length += sizeof(struct rtp_event);
}

static void collect_events(struct control *c) {
    uint64_t ignored;
    if (read(c->notify_fd, &ignored, sizeof ignored) < 0 && errno != EAGAIN && errno != EINTR)
        abort();
    collect_ring(c, &c->own_events);
    collect_ring(c, &c->recorders.events);
    for (uint32_t i = 0; i < c->worker_count; i++)
        collect_ring(c, &c->workers[i].events);
}

/* Events wait in their rings while the parent does not read; nothing is dropped here. */
static int write_events(struct control *c) {
    for (;;) {
        ssize_t n;
        if (c->out_sent == c->out_length) {
            c->out_sent = c->out_length = 0;
            collect_events(c);
            if (c->out_length == 0)
                return 0;
        }
        n = send(c->fd, (uint8_t *)c->out + c->out_sent, c->out_length - c->out_sent,
                 MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : ECONNRESET;
        c->out_sent += (size_t)n;
    }
}

/* The end of the stream tells it, unless somebody else (a process forked by the parent) still
 * holds the parent's end open. */
static bool parent_gone(const struct control *c) {
    return c->parent_pid && getppid() != c->parent_pid;
}

static int serve_once(struct control *c) {
    struct pollfd fds[2] = {{c->fd, POLLIN, 0}, {c->notify_fd, POLLIN, 0}};
    int error;
    if (c->out_length > c->out_sent) {
        fds[0].events |= POLLOUT;
        fds[1].fd = -1; /* the parent's turn: do not spin on events it cannot take */
    }
    if (poll(fds, 2, HEARTBEAT_MS) < 0 && errno != EINTR)
        return errno;
    c->shared->heartbeat++;
    if (parent_gone(c))
        return ECONNRESET;
    if (fds[0].revents & (POLLIN | POLLHUP | POLLERR)) {
        error = read_commands(c);
        if (error)
            return error;
    }
    return write_events(c);
}

int control_run(struct control *c) {
    const struct rtp_event ready = {.kind = RTP_EV_READY};
    int error = 0;
    ring_push(&c->own_events, &ready);
    error = write_events(c);
    while (!error)
        error = serve_once(c);
    return error == ECONNRESET ? 0 : error;
}
