#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rtp.h"

#define RATE 8000
#define MAX_BYTES (4u * 3600 * RATE * 2) /* four hours */
#define FORMAT_PCM 1
#define FORMAT_EXTENSIBLE 0xfffe

static uint32_t little32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint16_t little16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static bool is_telephone_pcm(const uint8_t *format, uint32_t length) {
    uint16_t tag = little16(format);
    if (tag == FORMAT_EXTENSIBLE && length >= 26)
        tag = little16(format + 24); /* the sub-format's first field is the tag proper */
    return tag == FORMAT_PCM && little16(format + 2) == 1 && little32(format + 4) == RATE &&
           little16(format + 14) == 16;
}

/* Walk the chunks up to "data"; the offset and length of the samples, or an errno. */
static int find_data(int fd, off_t size, off_t *start, size_t *length) {
    uint8_t head[40];
    bool format_seen = false;
    off_t at = 12;
    if (pread(fd, head, 12, 0) != 12 || memcmp(head, "RIFF", 4) || memcmp(head + 8, "WAVE", 4))
        return EINVAL;
    for (int chunks = 0; chunks < 64 && pread(fd, head, 8, at) == 8; chunks++) {
        uint32_t chunk = little32(head + 4);
        if (memcmp(head, "data", 4) == 0) {
            off_t rest = size - at - 8; /* a stream's writer leaves 0 or ffffffff as length */
            *start = at + 8;
            *length = (chunk && (off_t)chunk < rest) ? chunk : (size_t)rest;
            return format_seen ? 0 : EINVAL;
        }
        if (memcmp(head, "fmt ", 4) == 0) {
            size_t want = chunk < sizeof head ? chunk : sizeof head;
            memset(head, 0, sizeof head);
            if (want < 16 || pread(fd, head, want, at + 8) != (ssize_t)want)
                return EINVAL;
            format_seen = is_telephone_pcm(head, chunk);
        }
        at += 8 + (off_t)chunk + (chunk & 1);
    }
    return EINVAL;
}

static int read_all(int fd, uint8_t *out, size_t length, off_t at) {
    while (length > 0) {
        ssize_t n = pread(fd, out, length, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        out += n;
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

static int read_samples(int fd, int16_t **samples, size_t *count) {
    struct stat st;
    off_t start = 0;
    size_t length = 0;
    int error;
    if (fstat(fd, &st) != 0)
        return errno;
    if (!S_ISREG(st.st_mode))
        return EINVAL;
    error = find_data(fd, st.st_size, &start, &length);
    if (error)
        return error;
    if (length > MAX_BYTES)
        return EFBIG;
    *count = length / 2;
    *samples = malloc(*count ? *count * 2 : 2);
    if (*samples == NULL)
        return ENOMEM;
    /* WAV is little-endian, and so is every machine this is built for. */
    error = read_all(fd, (uint8_t *)*samples, *count * 2, start);
    if (error)
        free(*samples);
    return error;
}

int16_t *wav_read(const char *path, size_t *count, int *error) {
    int16_t *samples = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        *error = errno;
        return NULL;
    }
    *error = read_samples(fd, &samples, count);
    close(fd);
    return *error ? NULL : samples;
}

static void put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

void wav_header(uint8_t *out, uint32_t count) {
    static const uint8_t mono_pcm[] = {1, 0, 1, 0};
    memcpy(out, "RIFF", 4);
    put32(out + 4, 36 + 2 * count);
    memcpy(out + 8, "WAVEfmt ", 8);
    put32(out + 16, 16);
    memcpy(out + 20, mono_pcm, 4);
    put32(out + 24, RATE);
    put32(out + 28, RATE * 2);
    put32(out + 32, 2 | 16 << 16);
    memcpy(out + 36, "data", 4);
    put32(out + 40, 2 * count);
}
