/* Recordings to be played. */

/* The samples of an 8 kHz mono 16-bit PCM WAV file, to be freed with free(); NULL and *error = an
 * errno (EINVAL: not such a file, EFBIG: too long) where there are none. */
int16_t *wav_read(const char *path, size_t *count, int *error);
/* The 44 bytes that begin such a file with ``count`` samples. */
void wav_header(uint8_t *out, uint32_t count);
