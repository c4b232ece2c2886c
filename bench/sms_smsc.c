/* The fastest SMSC there is for `python -m bench sms`: it takes every submit_sm and keeps nothing.
 *
 * Not independent of us, and no judge of anything but speed: every SMSC of another make is busy long
 * before the clients measured here are. sms_smsc [receipts]: prints {"port": N}, answers each line
 * on stdin with what it took since the last line "reset", and ends with its stdin. With `receipts`
 * it sends one for every message that asks for it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 16, IN = 1 << 18, LARGEST = 70000, EVENTS = 64 };
enum { UNBIND = 0x06, SUBMIT_SM = 0x04, DELIVER_SM = 0x05, ENQUIRE_LINK = 0x15 };
static const uint32_t RESPONSE = 0x80000000u;

struct connection {
    int fd;
    int blocked;          /* waiting for the socket to take more */
    size_t used;          /* octets in `in` */
    size_t held, capacity; /* octets in `out`, and its size */
    char *out;
    char in[IN];
};

static unsigned long taken, since;
static double first, last;
static int receipts;
static uint32_t sequence;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint32_t number(const char *at)
{
    uint32_t n;
    memcpy(&n, at, 4);
    return ntohl(n);
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void put(struct connection *c, const void *octets, size_t count)
{
    if (c->held + count > c->capacity) {
        c->capacity = (c->held + count) * 2;
        c->out = realloc(c->out, c->capacity);
        if (!c->out)
            die("realloc");
    }
    memcpy(c->out + c->held, octets, count);
    c->held += count;
}

static void pdu(struct connection *c, uint32_t command, uint32_t seq, const void *body, size_t size)
{
    uint32_t header[4] = {htonl((uint32_t)(HEADER + size)), htonl(command), 0, htonl(seq)};
    put(c, header, HEADER);
    put(c, body, size);
}

/* The octet after a C-octet string, or `end` where it has none. */
static const char *after(const char *at, const char *end)
{
    const char *nul = memchr(at, 0, (size_t)(end - at));
    return nul ? nul + 1 : end;
}

/* SMPP 3.4 §4.4.1: what a receipt needs of a submit_sm. */
static void receipt(struct connection *c, const char *body, size_t size, const char *id)
{
    char out[400], text[160];
    const char *end = body + size;
    const char *source = after(body, end) + 2;
    const char *destination = source < end ? after(source, end) + 2 : end;
    const char *rest = destination < end ? after(destination, end) + 3 : end;
    if (rest < end)
        rest = after(rest, end); /* schedule_delivery_time */
    if (rest < end)
        rest = after(rest, end); /* validity_period */
    if (rest >= end || !(*rest & 1))
        return;
    int length = snprintf(text, sizeof text,
        "id:%s sub:001 dlvrd:001 submit date:2601010000 done date:2601010000 stat:DELIVRD err:000 text:",
        id);
    size_t at = 0;
    out[at++] = 0;
    out[at++] = 1, out[at++] = 1;
    at += (size_t)snprintf(out + at, 24, "%s", destination) + 1;
    out[at++] = 1, out[at++] = 1;
    at += (size_t)snprintf(out + at, 24, "%s", source) + 1;
    memcpy(out + at, "\4\0\0\0\0\0\0\0\0", 9);
    at += 9;
    out[at++] = (char)length;
    memcpy(out + at, text, (size_t)length);
    pdu(c, DELIVER_SM, ++sequence & 0x7fffffff, out, at + (size_t)length);
}

static int serve(struct connection *c, const char *at, uint32_t length)
{
    uint32_t command = number(at + 4), seq = number(at + 12);
    if (command == SUBMIT_SM) {
        char id[16];
        int size = snprintf(id, sizeof id, "%lu", ++taken);
        pdu(c, SUBMIT_SM | RESPONSE, seq, id, (size_t)size + 1);
        if (receipts)
            receipt(c, at + HEADER, length - HEADER, id);
        return 0;
    }
    if (command & RESPONSE)
        return 0;
    if (command == ENQUIRE_LINK || command == UNBIND) {
        pdu(c, command | RESPONSE, seq, "", 0);
        return 0;
    }
    pdu(c, command | RESPONSE, seq, "fast", 5); /* a bind */
    return 0;
}

static int flush(struct connection *c)
{
    size_t done = 0;
    while (done < c->held) {
        ssize_t n = write(c->fd, c->out + done, c->held - done);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            return -1;
        done += (size_t)n;
    }
    memmove(c->out, c->out + done, c->held - done);
    c->held -= done;
    return 0;
}

static int take(struct connection *c)
{
    ssize_t n = read(c->fd, c->in + c->used, IN - c->used);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    if (n == 0)
        return -1;
    c->used += (size_t)n;
    unsigned long before = taken;
    size_t at = 0;
    while (c->used - at >= HEADER) {
        uint32_t length = number(c->in + at);
        if (length < HEADER || length > LARGEST)
            return -1;
        if (c->used - at < length)
            break;
        if (serve(c, c->in + at, length))
            return -1;
        at += length;
    }
    memmove(c->in, c->in + at, c->used - at);
    c->used -= at;
    if (taken != before) {
        last = now();
        if (before == since)
            first = last;
    }
    return flush(c);
}

static void watch(int epoll, int fd, void *who, uint32_t events, int how)
{
    struct epoll_event event = {.events = events, .data.ptr = who};
    if (epoll_ctl(epoll, how, fd, &event))
        die("epoll_ctl");
}

static void welcome(int epoll, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), yes = 1;
    struct connection *c = fd < 0 ? NULL : calloc(1, sizeof *c);
    if (!c)
        die("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    c->fd = fd;
    watch(epoll, fd, c, EPOLLIN, EPOLL_CTL_ADD);
}

static void tell(void)
{
    char line[64];
    if (read(0, line, sizeof line) <= 0)
        exit(0);
    printf("{\"taken\": %lu, \"seconds\": %.6f}\n", taken - since, last - first);
    fflush(stdout);
    if (line[0] == 'r') /* "reset" */
        since = taken;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    receipts = argc > 1 && !strcmp(argv[1], "receipts");
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 16))
        die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    watch(epoll, listener, &listener, EPOLLIN, EPOLL_CTL_ADD);
    watch(epoll, 0, &epoll, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].data.ptr == &listener) {
                welcome(epoll, listener);
            } else if (events[i].data.ptr == &epoll) {
                tell();
            } else if ((events[i].events & EPOLLIN ? take(c) : flush(c)) < 0) {
                close(c->fd);
                free(c->out);
                free(c);
            } else if (c->blocked != (c->held > 0)) {
                c->blocked = c->held > 0;
                watch(epoll, c->fd, c, c->blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
            }
        }
    }
}
