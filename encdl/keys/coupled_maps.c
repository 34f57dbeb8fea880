/* The lanes of `encdl.keys.coupled_maps`: the formulas of its text and of `encdl.keys.chaotic_maps`.

   Every loop runs over the lanes without a branch, so that a compiler makes vectors of it. Processors whose vectors
   multiply 64 bits by 64 get no upper half from it: `wide` takes squares and slopes from halves of 32 bits. */

#include "../utils/compiled.h"

#if defined(__SIZEOF_INT128__)

typedef uint64_t word;
typedef unsigned __int128 product;

enum { REVISION = 3 }; /* of the functions' form, as in `encdl.keys.coupled_maps` */

enum { LOGISTIC, CHEBYSHEV, TENT, PIECEWISE_LINEAR }; /* `UnitMap.code` */

static const word HALF = (word)1 << 63, MULTIPLIER = 0x9E3779B97F4A7C15u;

#define INLINE static inline __attribute__((always_inline))

EXPORT int encdl_maps_revision(void) { return REVISION; }

INLINE word rotate_left(word value, int bits) { return value << bits | value >> (64 - bits); }

/* All ones where the top bit is set, else zero. */
INLINE word sign(word value) { return -(value >> 63); }

/* floor(d**2 / 2**64) of d = 2|s| mod 2**64; in halves as `encdl.keys.fixed_point.square_high`. */
INLINE word square(int wide, word s) {
    word d = ((s ^ sign(s)) - sign(s)) << 1, high = d >> 32, low = (uint32_t)d;
    if (!wide) return (word)((product)d * d >> 64);
    return high * high + ((high * low + (low * low >> 33)) >> 31);
}

/* floor(v * slope / 2**30) below 2**64, slope <= 2**32; in halves as `encdl.keys.fixed_point.multiply_slope`. */
INLINE word scale(int wide, word v, word slope) {
    if (!wide) return (word)((product)v * slope >> 30);
    return ((v >> 32) * slope << 2) + ((word)(uint32_t)v * slope >> 30);
}

/* q, left, right: a break point in units of 2**-63, and the slopes to its left and right. */
INLINE word evaluate(int wide, int map, word u, word q, word left, word right) {
    if (map == LOGISTIC) return ~square(wide, u);
    if (map == CHEBYSHEV) return square(wide, square(wide, u) ^ HALF) ^ HALF;
    if (map == TENT) {
        word below = sign((u >> 1) - q);
        return scale(wide, u ^ ~below, right ^ ((left ^ right) & below));
    }
    word e = u ^ sign(u), below = sign(e - q);
    return scale(wide, (e - (q & ~below)) << 1, right ^ ((left ^ right) & below));
}

INLINE void run(int wide, int map, word *state, word *out, int64_t lanes, int64_t steps) {
    word *x = state, *y = x + lanes, *w = y + lanes, *c = w + lanes, *more = c + lanes;
    for (int64_t step = 0; step < steps; step++, out += lanes) {
#pragma GCC ivdep /* no array overlaps another */
        for (int64_t lane = 0; lane < lanes; lane++) {
            word q = 0, left = 0, right = 0;
            if (map >= TENT) q = more[lane], left = more[lanes + lane], right = more[2 * lanes + lane];
            word wn = w[lane] + c[lane];
            word xn = rotate_left(x[lane] + evaluate(wide, map, y[lane], q, left, right) + wn, 29);
            word yn = rotate_left(y[lane] + evaluate(wide, map, xn, q, left, right), 19);
            word z = yn * MULTIPLIER;
            x[lane] = xn, y[lane] = yn, w[lane] = wn;
            out[lane] = xn + (z ^ z >> 32);
        }
    }
}

INLINE void run_any(int wide, int map, word *state, word *out, int64_t lanes, int64_t steps) {
    if (map == LOGISTIC) run(wide, LOGISTIC, state, out, lanes, steps); /* each compiled by itself */
    if (map == CHEBYSHEV) run(wide, CHEBYSHEV, state, out, lanes, steps);
    if (map == TENT) run(wide, TENT, state, out, lanes, steps);
    if (map == PIECEWISE_LINEAR) run(wide, PIECEWISE_LINEAR, state, out, lanes, steps);
}

/* ---- `encdl.audit.attacks.lane_model`: the same lanes in words of 32 bits, from their outputs back to a guess of y. */

typedef uint32_t word32;
enum { GUESSES = 1024 }; /* that are tried before one looks whether any fits */

INLINE word32 rotate_right32(word32 value, int bits) { return value >> bits | value << (32 - bits); }

INLINE word32 square32(word32 s) {
    word32 d = (s >> 31 ? -s : s) << 1, high = d >> 16, low = d & 0xFFFF;
    return high * high + ((high * low + (low * low >> 17)) >> 15);
}

INLINE word32 evaluate32(int map, word32 u) {
    return map == LOGISTIC ? ~square32(u) : square32(square32(u) ^ 0x80000000u) ^ 0x80000000u;
}

INLINE word32 spread32(word32 y) {
    word32 z = y * 0x9E3779B9u;
    return z ^ z >> 16;
}

/* Whether y after the last of four outputs fits them all: the counter goes up by one odd c twice. */
INLINE int fits(int map, word32 y3, word32 o0, word32 o1, word32 o2, word32 o3) {
    word32 x3 = o3 - spread32(y3), y2 = rotate_right32(y3, 9) - evaluate32(map, x3);
    word32 x2 = o2 - spread32(y2), w3 = rotate_right32(x3, 14) - x2 - evaluate32(map, y2);
    word32 y1 = rotate_right32(y2, 9) - evaluate32(map, x2);
    word32 x1 = o1 - spread32(y1), w2 = rotate_right32(x2, 14) - x1 - evaluate32(map, y1);
    word32 y0 = rotate_right32(y1, 9) - evaluate32(map, x1);
    word32 x0 = o0 - spread32(y0), w1 = rotate_right32(x1, 14) - x0 - evaluate32(map, y0);
    return (((w3 - w2) ^ (w2 - w1)) | (~(w3 - w2) & 1)) == 0;
}

INLINE int64_t search(int map, const word32 *o, word32 start, int64_t count, word32 *found, int64_t room) {
    word32 o0 = o[0], o1 = o[1], o2 = o[2], o3 = o[3];
    int64_t hits = 0;
    for (int64_t first = 0; first < count; first += GUESSES) {
        int any = 0, these = (int)(count - first < GUESSES ? count - first : GUESSES);
        for (int guess = 0; guess < these; guess++)
            any |= fits(map, start + (word32)(first + guess), o0, o1, o2, o3);
        for (int guess = 0; any && guess < these; guess++)
            if (fits(map, start + (word32)(first + guess), o0, o1, o2, o3)) {
                if (hits < room) found[hits] = start + (word32)(first + guess);
                hits++;
            }
    }
    return hits;
}

INLINE int64_t search_any(int map, const word32 *outputs, word32 start, int64_t count, word32 *found, int64_t room) {
    return map == LOGISTIC ? search(LOGISTIC, outputs, start, count, found, room)
                           : search(CHEBYSHEV, outputs, start, count, found, room);
}

/* ---- Each compiled for wider vectors too. */

#if defined(__x86_64__) && defined(__GNUC__)

#define AVX2 __attribute__((target("avx2"))) static
#define AVX512 __attribute__((target("avx512f,avx512dq"))) static

AVX2 void run_avx2(int map, word *state, word *out, int64_t lanes, int64_t steps) {
    run_any(1, map, state, out, lanes, steps);
}

AVX512 void run_avx512(int map, word *state, word *out, int64_t lanes, int64_t steps) {
    run_any(1, map, state, out, lanes, steps);
}

AVX2 int64_t search_avx2(int map, const word32 *outputs, word32 start, int64_t count, word32 *found, int64_t room) {
    return search_any(map, outputs, start, count, found, room);
}

AVX512 int64_t search_avx512(int map, const word32 *outputs, word32 start, int64_t count, word32 *found, int64_t room) {
    return search_any(map, outputs, start, count, found, room);
}

#define HAS_AVX2 __builtin_cpu_supports("avx2")
#define HAS_AVX512 (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))

#endif

/* The outputs of the lanes at their next `steps` steps, (steps, lanes). `state`, (rows, lanes), holds x, y, w, an odd c
   and, for the maps of segments, these; it is left as it is after the last step. `vectors`: the widest to use where the
   processor has them, 0 for none, 1 for AVX2, 2 for AVX-512. */
EXPORT void encdl_iterate(int map, int vectors, word *state, word *out, int64_t lanes, int64_t steps) {
#ifdef HAS_AVX2
    if (vectors >= 2 && HAS_AVX512) {
        run_avx512(map, state, out, lanes, steps);
        return;
    }
    if (vectors >= 1 && HAS_AVX2) {
        run_avx2(map, state, out, lanes, steps);
        return;
    }
#endif
    (void)vectors;
    run_any(0, map, state, out, lanes, steps);
}

/* Which y from `start` on, of `count`, fit four outputs of a lane of 32 bits, LOGISTIC or CHEBYSHEV: how many, and the
   first `room` of them. */
EXPORT int64_t encdl_search(int map, const word32 *outputs, word32 start, int64_t count, word32 *found, int64_t room) {
#ifdef HAS_AVX2
    if (HAS_AVX512) return search_avx512(map, outputs, start, count, found, room);
    if (HAS_AVX2) return search_avx2(map, outputs, start, count, found, room);
#endif
    return search_any(map, outputs, start, count, found, room);
}

#else /* a compiler without 128-bit integers: numpy does it */

EXPORT int encdl_maps_revision(void) { return 0; }

#endif
