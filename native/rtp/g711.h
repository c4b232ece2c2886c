/* ITU-T G.711 by tables. */

/* Fill the tables; call once before anything else. */
void g711_init(void);
void g711_encode_ulaw(const int16_t *samples, uint8_t *out, size_t count);
void g711_encode_alaw(const int16_t *samples, uint8_t *out, size_t count);
void g711_decode_ulaw(const uint8_t *data, int16_t *out, size_t count);
void g711_decode_alaw(const uint8_t *data, int16_t *out, size_t count);
