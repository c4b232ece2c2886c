#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define MASK (RECORDER_SAMPLES - 1)
#define PERIOD_NS 100000000

struct recorder *recorder_open(const char *path, int *error) {
    uint8_t header[44];
    struct recorder *recorder = calloc(1, sizeof *recorder);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    wav_header(header, 0);
    if (recorder && fd >= 0)
        recorder->file = fdopen(fd, "wb");
    if (recorder && recorder->file && fwrite(header, sizeof header, 1, recorder->file) == 1)
        return recorder;
    *error = errno ? errno : EIO;
    if (recorder && recorder->file)
        fclose(recorder->file);
    else if (fd >= 0)
        close(fd);
    free(recorder);
    return NULL;
}

bool recorder_step(struct recorder *r) {
    int16_t frame[RTP_FRAME];
    unsigned head = atomic_load_explicit(&r->head, memory_order_relaxed);
    unsigned used = head - atomic_load_explicit(&r->tail, memory_order_acquire);
    jitter_read(&r->jitter, frame);
    if (used + RTP_FRAME > RECORDER_SAMPLES)
        return false;
    for (unsigned i = 0; i < RTP_FRAME; i++)
        r->samples[(head + i) & MASK] = frame[i];
    atomic_store_explicit(&r->head, head + RTP_FRAME, memory_order_release);
    return true;
}

void recorder_close(struct recorder *r) {
    while (jitter_left(&r->jitter) > 0 && recorder_step(r))
        ;
    atomic_store(&r->closed, true);
}

static void write_ring(struct recorder *r) {
    unsigned tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    unsigned head = atomic_load_explicit(&r->head, memory_order_acquire);
    while (tail != head) {
        unsigned at = tail & MASK;
        unsigned count = head - tail;
        if (count > RECORDER_SAMPLES - at)
            count = RECORDER_SAMPLES - at;
        if (!r->error && fwrite(r->samples + at, 2, count, r->file) != count)
            r->error = errno ? errno : EIO;
        r->written += count;
        tail += count;
        atomic_store_explicit(&r->tail, tail, memory_order_release);
    }
}

static void finish(struct recorder_thread *self, struct recorder *r) {
    uint8_t header[44];
    uint64_t one = 1;
    struct rtp_event event = {.kind = RTP_EV_RECORDED, .index = r->index,
                              .generation = r->generation, .token = r->token};
    wav_header(header, r->written);
    if (fseek(r->file, 0, SEEK_SET) != 0 || fwrite(header, sizeof header, 1, r->file) != 1)
        r->error = r->error ? r->error : EIO;
    if (fclose(r->file) != 0)
        r->error = r->error ? r->error : errno;
    if (r->error) {
        event.kind = RTP_EV_RECORD_FAILED;
        event.arg = (uint8_t)r->error;
    }
    free(r);
    /* Full only when the parent has left some 30,000 unread; then it is gone or wedged. */
    ring_push(&self->events, &event);
    if (write(self->notify_fd, &one, sizeof one) < 0)
        return; /* an eventfd at its maximum is readable already */
}

/* Take the finished ones off the list; files are closed without the lock. */
static struct recorder *unlink_done(struct recorder_thread *self) {
    struct recorder *done = NULL;
    pthread_mutex_lock(&self->lock);
    for (struct recorder **at = &self->recorders; *at;) {
        struct recorder *r = *at;
        if (r->done) {
            *at = r->next;
            r->next = done;
            done = r;
        } else {
            at = &r->next;
        }
    }
    pthread_mutex_unlock(&self->lock);
    return done;
}

/* One pass over all recorders. Others only put new ones in front, so the list may be walked
 * without the lock from any head once seen. */
static void pass(struct recorder_thread *self) {
    struct recorder *first, *done;
    pthread_mutex_lock(&self->lock);
    first = self->recorders;
    pthread_mutex_unlock(&self->lock);
    for (struct recorder *r = first; r; r = r->next) {
        r->done = atomic_load(&r->closed); /* before the last look into the ring */
        write_ring(r);
    }
    done = unlink_done(self);
    while (done) {
        struct recorder *next = done->next;
        finish(self, done);
        done = next;
    }
}

/* Sleep while there is nothing to write; false = no recorder is left and none will come. */
static bool wait_for_work(struct recorder_thread *self) {
    bool work;
    pthread_mutex_lock(&self->lock);
    while (self->recorders == NULL && !self->stop)
        pthread_cond_wait(&self->wake, &self->lock);
    work = self->recorders != NULL;
    pthread_mutex_unlock(&self->lock);
    return work;
}

static void *thread_main(void *argument) {
    struct recorder_thread *self = argument;
    const struct timespec period = {0, PERIOD_NS};
    while (wait_for_work(self)) {
        pass(self);
        nanosleep(&period, NULL);
    }
    return NULL;
}

int recorder_thread_start(struct recorder_thread *self, int notify_fd) {
    self->notify_fd = notify_fd;
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->wake, NULL);
    if (ring_init(&self->events, sizeof(struct rtp_event), 32768) != 0)
        return -1;
    return pthread_create(&self->thread, NULL, thread_main, self) ? -1 : 0;
}

void recorder_thread_add(struct recorder_thread *self, struct recorder *recorder) {
    pthread_mutex_lock(&self->lock);
    recorder->next = self->recorders;
    self->recorders = recorder;
    pthread_cond_signal(&self->wake);
    pthread_mutex_unlock(&self->lock);
}

void recorder_thread_stop(struct recorder_thread *self) {
    pthread_mutex_lock(&self->lock);
    self->stop = true;
    pthread_cond_signal(&self->wake);
    pthread_mutex_unlock(&self->lock);
    pthread_join(self->thread, NULL);
    free(self->events.items);
}
