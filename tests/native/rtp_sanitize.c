/* The whole engine under a sanitizer: built and run by test_rtp_process.py.
 *
 * Usage: rtp_sanitize PORT_MIN PORT_MAX WAV RECORDING SECONDS. Feeds noise to the parsers, then runs
 * the engine with the parent's end of the control socket in its own hands: sessions call each
 * other over loopback, play, dial, record, move and end at random while strangers send rubbish. */

#include <arpa/inet.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "rtp.h"

static uint64_t seed = 88172645463325252u;

static uint32_t noise(uint32_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % below;
}

static void fuzz_parsers(void) {
    struct dtmf_receiver dtmf = {0};
    struct rtp_source source = {0};
    struct jitter_buffer *jitter = calloc(1, sizeof *jitter);
    int16_t samples[1500] = {0}, frame[160];
    for (int i = 0; i < 200000; i++) {
        size_t length = noise(64);
        uint8_t *data = malloc(length ? length : 1); /* exact size: an overrun is seen */
        struct rtp_packet packet;
        for (size_t k = 0; k < length; k++)
            data[k] = (uint8_t)noise(256);
        if (length)
            data[0] = (uint8_t)(0x80 | (data[0] & (noise(2) ? 0x3f : 0)));
        if (rtp_parse(data, length, &packet) == 0) {
            dtmf_receive(&dtmf, &packet);
            rtp_source_update(&source, &packet, noise(1u << 31));
            jitter_write(jitter, packet.ssrc & 1, packet.timestamp, samples, noise(1500));
            jitter_read(jitter, frame);
        }
        free(data);
    }
    free(jitter);
}

struct run {
    struct rtp_config config;
    struct rtp_shared *shared;
    int error;
};

static void *run_engine(void *argument) {
    struct run *run = argument;
    run->error = rtp_engine_run(&run->config, run->shared);
    return NULL;
}

static void put(int fd, const void *head, size_t length, const char *text, size_t count) {
    uint8_t message[RTP_MAX_MESSAGE];
    uint16_t total = (uint16_t)(length + count);
    memcpy(message, head, length);
    memcpy(message + length, text, count);
    memcpy(message, &total, sizeof total);
    if (send(fd, message, total, MSG_NOSIGNAL) != total)
        abort();
}

static void put_text(int fd, uint8_t kind, uint32_t index, uint32_t generation, const char *text) {
    struct rtp_msg_text m = {{0, kind, 0, index, generation}, 7};
    put(fd, &m, sizeof m, text, strlen(text));
}

static void put_connect(int fd, uint32_t index, uint32_t generation, uint32_t port) {
    struct rtp_msg_connect m = {.head = {0, RTP_CMD_CONNECT, 0, index, generation},
                                .ip = {127, 0, 0, 1}, .port = (uint16_t)port,
                                .payload_type = noise(2) ? 0 : 8, .dtmf_send = 101,
                                .dtmf_receive = 101, .send = noise(8) > 0};
    put(fd, &m, sizeof m, "", 0);
}

static void put_bare(int fd, uint8_t kind, uint32_t index, uint32_t generation) {
    struct rtp_message m = {0, kind, 0, index, generation};
    put(fd, &m, sizeof m, "", 0);
}

static void put_lease(int fd, uint32_t index, uint32_t generation) {
    struct rtp_msg_lease m = {{0, RTP_CMD_LEASE, 0, index, generation}, noise(300)};
    put(fd, &m, sizeof m, "", 0);
}

static void do_something(int fd, uint32_t ports, const uint32_t *udp, uint32_t *generations,
                         char **arguments) {
    uint32_t i = noise(ports);
    switch (noise(12)) {
    case 0:
        put_lease(fd, i, ++generations[i]);
        put_connect(fd, i, generations[i], udp[i ^ 1]);
        break;
    case 1:
        put_bare(fd, RTP_CMD_RELEASE, i, generations[i]);
        break;
    case 2:
        put_bare(fd, RTP_CMD_STOP, i, generations[i]);
        break;
    case 3:
        put_text(fd, RTP_CMD_DTMF, i, generations[i], noise(4) ? "0159*#AD" : "");
        break;
    case 4:
        if (i < 8) /* all of them into one file would only test the file system */
            put_text(fd, RTP_CMD_RECORD, i, generations[i], arguments[4]);
        break;
    case 5:
        put_connect(fd, i, generations[i], udp[noise(ports)]);
        break;
    case 6:
        put_text(fd, RTP_CMD_PLAY, i, generations[i] - noise(2), noise(9) ? arguments[3] : "/none");
        break;
    default:
        put_text(fd, RTP_CMD_PLAY, i, generations[i], arguments[3]);
    }
}

static void send_rubbish(int fd, uint32_t port) {
    uint8_t data[200];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)noise(256);
    data[0] = (uint8_t)(0x80 | (data[0] & 0x3f));
    data[1] = noise(2) ? 101 : data[1];
    sendto(fd, data, noise(sizeof data), 0, (struct sockaddr *)&to, sizeof to);
}

static void read_events(int fd, uint32_t *counts) {
    struct rtp_event events[256];
    ssize_t n;
    while ((n = recv(fd, events, sizeof events, MSG_DONTWAIT)) > 0)
        for (size_t i = 0; i < (size_t)n / sizeof *events; i++)
            counts[events[i].kind & 15]++;
}

static void act_as_parent(int fd, struct rtp_shared *shared, char **arguments) {
    const struct timespec pause = {0, 500000};
    struct rtp_event ready;
    uint32_t udp[64], generations[64] = {0}, counts[16] = {0};
    int stranger = socket(AF_INET, SOCK_DGRAM, 0);
    time_t end = time(NULL) + atoi(arguments[5]);
    uint32_t ports;
    if (recv(fd, &ready, sizeof ready, MSG_WAITALL) != sizeof ready || ready.kind != RTP_EV_READY)
        abort();
    ports = shared->ports < 64 ? shared->ports & ~1u : 64;
    for (uint32_t i = 0; i < ports; i++)
        udp[i] = shared->port[i].port;
    while (time(NULL) < end) {
        do_something(fd, ports, udp, generations, arguments);
        send_rubbish(stranger, udp[noise(ports)]);
        read_events(fd, counts);
        nanosleep(&pause, NULL);
    }
    close(stranger);
    printf("played %u digits %u dtmf_sent %u recorded %u failed %u\n", counts[RTP_EV_PLAYED],
           counts[RTP_EV_DIGIT], counts[RTP_EV_DTMF_SENT], counts[RTP_EV_RECORDED],
           counts[RTP_EV_PLAY_FAILED]);
}

int main(int count, char **arguments) {
    int fds[2];
    pthread_t thread;
    struct run run = {.config = {.ip = {127, 0, 0, 1}, .threads = 2}};
    if (count != 6 || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
        return 2;
    g711_init();
    fuzz_parsers();
    run.shared = calloc(1, sizeof *run.shared);
    run.config.port_min = (uint32_t)atoi(arguments[1]);
    run.config.port_max = (uint32_t)atoi(arguments[2]);
    run.config.control_fd = fds[1];
    pthread_create(&thread, NULL, run_engine, &run);
    act_as_parent(fds[0], run.shared, arguments);
    close(fds[0]);
    pthread_join(thread, NULL);
    close(fds[1]);
    free(run.shared);
    return run.error;
}
