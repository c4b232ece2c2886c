#include "rtp.h"

#define ULAW_BIAS 0x84
#define ULAW_CLIP 32635

static uint8_t ulaw_of[65536];
static uint8_t alaw_of[65536];
static int16_t linear_of_ulaw[256];
static int16_t linear_of_alaw[256];

static int16_t ulaw_expand(uint8_t byte) {
    int code = ~byte & 0xff;
    int magnitude = ((((code & 0x0f) << 3) + ULAW_BIAS) << ((code & 0x70) >> 4)) - ULAW_BIAS;
    return (int16_t)(code & 0x80 ? -magnitude : magnitude);
}

static uint8_t ulaw_compress(int sample) {
    int sign = sample < 0 ? 0x80 : 0;
    int magnitude = sample < 0 ? -sample : sample;
    int segment = 7;
    if (magnitude > ULAW_CLIP)
        magnitude = ULAW_CLIP;
    magnitude += ULAW_BIAS;
    while (segment > 0 && !(magnitude & (0x80 << segment)))
        segment--;
    return (uint8_t)~(sign | segment << 4 | ((magnitude >> (segment + 3)) & 0x0f));
}

static int16_t alaw_expand(uint8_t byte) {
    int code = byte ^ 0x55;
    int segment = (code & 0x70) >> 4;
    int magnitude = ((code & 0x0f) << 4) + 8;
    if (segment > 0)
        magnitude = (magnitude + 0x100) << (segment - 1);
    return (int16_t)(code & 0x80 ? magnitude : -magnitude);
}

/* The sign bit of A-law says "positive", and even bits are inverted on the line: G.711 table 1a. */
static uint8_t alaw_compress(int sample) {
    int sign = sample >= 0 ? 0x80 : 0;
    int magnitude = sample >= 0 ? sample : -sample - 1;
    int segment = 0;
    while (segment < 7 && magnitude >= (0x100 << segment))
        segment++;
    if (segment == 0)
        return (uint8_t)((sign | magnitude >> 4) ^ 0x55);
    return (uint8_t)((sign | segment << 4 | ((magnitude >> (segment + 3)) & 0x0f)) ^ 0x55);
}

void g711_init(void) {
    for (int i = 0; i < 65536; i++) {
        ulaw_of[i] = ulaw_compress((int16_t)i);
        alaw_of[i] = alaw_compress((int16_t)i);
    }
    for (int i = 0; i < 256; i++) {
        linear_of_ulaw[i] = ulaw_expand((uint8_t)i);
        linear_of_alaw[i] = alaw_expand((uint8_t)i);
    }
}

void g711_encode_ulaw(const int16_t *samples, uint8_t *out, size_t count) {
    for (size_t i = 0; i < count; i++)
        out[i] = ulaw_of[(uint16_t)samples[i]];
}

void g711_encode_alaw(const int16_t *samples, uint8_t *out, size_t count) {
    for (size_t i = 0; i < count; i++)
        out[i] = alaw_of[(uint16_t)samples[i]];
}

void g711_decode_ulaw(const uint8_t *data, int16_t *out, size_t count) {
    for (size_t i = 0; i < count; i++)
        out[i] = linear_of_ulaw[data[i]];
}

void g711_decode_alaw(const uint8_t *data, int16_t *out, size_t count) {
    for (size_t i = 0; i < count; i++)
        out[i] = linear_of_alaw[data[i]];
}
