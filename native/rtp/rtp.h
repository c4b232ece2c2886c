/* Everything the C files of the engine share. */
#ifndef OUTSPOOL_RTP_H
#define OUTSPOOL_RTP_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared.h"

#include "packet.h"

#include "g711.h"

#include "dtmf.h"

#include "wav.h"

#include "jitter.h"

#include "engine.h"

#define RTP_FRAME 160     /* samples and G.711 bytes of 20 ms at 8 kHz */
#define RTP_SLOTS 20      /* one a millisecond: sessions take turns, no bursts */
#define RTP_TICK_US 1000

#endif
