#include "worker.h"

#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define PRIORITY 20
/* Up to three frames late, frames are sent at once and the far end's jitter buffer takes it.
 * Later than that (a machine that stood still) the frames are skipped: clips go on where they
 * were, timestamps show the gap. */
#define MAX_CATCH_UP_TICKS 60

uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

void worker_event(struct worker *w, const struct session *s, uint8_t kind, uint8_t arg,
                  uint32_t token) {
    struct rtp_event event = {.kind = kind, .arg = arg, .index = s->index,
                              .generation = s->generation, .token = token};
    /* Digits are the only events the outside can cause at will: they may not crowd out the others,
     * of which each lease has only a few. */
    bool crowded = ring_free(&w->events) <= (w->events.mask + 1) / 2;
    if ((kind == RTP_EV_DIGIT && crowded) || !ring_push(&w->events, &event))
        w->stats->digits_dropped++;
    w->notify = true;
}

static void tell_control(struct worker *w) {
    uint64_t one = 1;
    if (w->notify && write(w->notify_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        abort(); /* our own eventfd: only a bug can make it fail */
    w->notify = false;
}

static void take_commands(struct worker *w) {
    struct command command;
    while (ring_pop(&w->inbox, &command))
        session_command(w, &w->sessions[command.index], &command);
    w->stats->sessions = w->session_count;
}

static void start_clock(struct worker *w) {
    struct itimerspec period = {{0, RTP_TICK_US * 1000}, {0, RTP_TICK_US * 1000}};
    timerfd_settime(w->timer_fd, 0, &period, NULL);
    w->base_us = now_us() - w->tick * RTP_TICK_US;
}

static void stop_clock(struct worker *w) {
    struct itimerspec off = {{0, 0}, {0, 0}};
    timerfd_settime(w->timer_fd, 0, &off, NULL);
}

/* Without sessions there is no time to keep: sleep until the control thread has something. */
static void sleep_idle(struct worker *w) {
    uint64_t ignored;
    stop_clock(w);
    tell_control(w);
    atomic_store(&w->idle, true);
    while (ring_empty(&w->inbox) && !atomic_load(&w->stop))
        if (read(w->wake_fd, &ignored, sizeof ignored) < 0 && errno != EINTR)
            abort();
    atomic_store(&w->idle, false);
    start_clock(w);
}

static void run_tick(struct worker *w) {
    uint64_t due = w->base_us + w->tick * RTP_TICK_US;
    struct session *s = w->slots[w->tick % RTP_SLOTS];
    while (s) {
        struct session *next = s->next;
        session_turn(w, s, due);
        s = next;
    }
}

static void catch_up(struct worker *w) {
    uint64_t target = (now_us() - w->base_us) / RTP_TICK_US;
    if (target > w->tick + MAX_CATCH_UP_TICKS) {
        w->stats->stalls++;
        w->tick = target - 1;
    }
    while (w->tick < target) {
        w->tick++;
        take_commands(w);
        run_tick(w);
    }
    w->stats->ticks = w->tick;
    tell_control(w);
}

static void ask_for_realtime(struct worker *w) {
    struct sched_param parameter = {.sched_priority = PRIORITY};
    if (w->realtime_wanted)
        w->stats->realtime = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter) == 0;
}

static void release_all(struct worker *w) {
    struct command command = {.kind = RTP_CMD_RELEASE};
    take_commands(w);
    for (int i = 0; i < RTP_SLOTS; i++)
        while (w->slots[i]) {
            command.generation = w->slots[i]->generation;
            session_command(w, w->slots[i], &command);
        }
}

static void *thread_main(void *argument) {
    struct worker *w = argument;
    uint64_t expirations;
    ask_for_realtime(w);
    while (!atomic_load(&w->stop)) {
        if (w->session_count == 0 && ring_empty(&w->inbox))
            sleep_idle(w);
        if (read(w->timer_fd, &expirations, sizeof expirations) < 0 && errno != EINTR)
            abort();
        catch_up(w);
    }
    release_all(w);
    return NULL;
}

int worker_start(struct worker *w) {
    w->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    w->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (w->timer_fd < 0 || w->wake_fd < 0)
        return errno;
    worker_prepare_batch(w);
    start_clock(w);
    return pthread_create(&w->thread, NULL, thread_main, w);
}

void worker_wake(struct worker *w) {
    uint64_t one = 1;
    if (atomic_load(&w->idle) && write(w->wake_fd, &one, sizeof one) < 0)
        abort();
}

void worker_stop(struct worker *w) {
    uint64_t one = 1;
    atomic_store(&w->stop, true);
    if (write(w->wake_fd, &one, sizeof one) < 0)
        abort();
    pthread_join(w->thread, NULL);
    close(w->timer_fd);
    close(w->wake_fd);
}
