/* The lanes of `encdl.keys.coupled`: the formulas of its text and of `encdl.keys.chaos`.

   Every loop runs over the lanes without a branch, so that a compiler makes vectors of it. Processors whose vectors
   multiply 64 bits by 64 get no upper half from it: `wide` takes squares and slopes from halves of 32 bits. */

#include "../compiled.h"

#if defined(__SIZEOF_INT128__)

typedef uint64_t word;
typedef unsigned __int128 product;

enum { REVISION = 2 }; /* of the functions' form, as in `encdl.keys.coupled` */

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

#if defined(__x86_64__) && defined(__GNUC__)

__attribute__((target("avx2"))) static void run_avx2(int map, word *state, word *out, int64_t lanes, int64_t steps) {
    run_any(1, map, state, out, lanes, steps);
}

__attribute__((target("avx512f,avx512dq"))) static void run_avx512(int map, word *state, word *out, int64_t lanes,
                                                                   int64_t steps) {
    run_any(1, map, state, out, lanes, steps);
}

#endif

/* The outputs of the lanes at their next `steps` steps, (steps, lanes). `state`, (rows, lanes), holds x, y, w, an odd c
   and, for the maps of segments, these; it is left as it is after the last step. `vectors`: the widest to use where the
   processor has them, 0 for none, 1 for AVX2, 2 for AVX-512. */
EXPORT void encdl_iterate(int map, int vectors, word *state, word *out, int64_t lanes, int64_t steps) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (vectors >= 2 && __builtin_cpu_supports("avx512dq")) {
        run_avx512(map, state, out, lanes, steps);
        return;
    }
    if (vectors >= 1 && __builtin_cpu_supports("avx2")) {
        run_avx2(map, state, out, lanes, steps);
        return;
    }
#else
    (void)vectors;
#endif
    run_any(0, map, state, out, lanes, steps);
}

#else /* a compiler without 128-bit integers: numpy does it */

EXPORT int encdl_maps_revision(void) { return 0; }

#endif
