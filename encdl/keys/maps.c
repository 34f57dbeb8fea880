/* The lanes of `encdl.keys.maps.CoupledMap`: the formulas of its text and of `encdl.keys.chaos`, a lane at a time. */

#include "../compiled.h"

#if defined(__SIZEOF_INT128__)

typedef uint64_t word;
typedef unsigned __int128 product;

enum { REVISION = 1 }; /* of the functions' form, as in `encdl.keys.maps` */

enum { LOGISTIC, CHEBYSHEV, TENT, PIECEWISE_LINEAR }; /* `UnitMap.code` */

static const word HALF = (word)1 << 63, MULTIPLIER = 0x9E3779B97F4A7C15u;

EXPORT int encdl_maps_revision(void) { return REVISION; }

static inline word rotate_left(word value, int bits) { return value << bits | value >> (64 - bits); }

/* floor(d**2 / 2**64) of d = 2|s| mod 2**64. */
static inline word square(word s) {
    word d = (s >> 63 ? -s : s) << 1;
    return (word)((product)d * d >> 64);
}

/* What a lane's map takes besides its argument: a break point in units of 2**-63, and slopes to its left and right. */
typedef struct {
    word q, left, right;
} segments;

static inline word evaluate(int map, word u, segments s) {
    if (map == LOGISTIC) return ~square(u);
    if (map == CHEBYSHEV) return square(square(u) ^ HALF) ^ HALF;
    if (map == TENT) {
        word below = -(word)(u >> 1 < s.q); /* all ones or zero: no branch, as no processor could foresee it */
        return (word)((product)(u ^ ~below) * (s.right ^ ((s.left ^ s.right) & below)) >> 30);
    }
    word e = u ^ -(u >> 63), below = -(word)(e < s.q);
    return (word)((product)((e - (s.q & ~below)) << 1) * (s.right ^ ((s.left ^ s.right) & below)) >> 30);
}

/* One seed; `row` words lie between the rows of its state. */
static inline void iterate(int map, word *state, word *out, int64_t row, int64_t lanes, int64_t warm_up, int64_t steps) {
    word *x = state, *y = x + row, *w = y + row, *c = w + row, *more = c + row;
    for (int64_t step = -warm_up; step < steps; step++)
        for (int64_t lane = 0; lane < lanes; lane++) {
            segments s = {0, 0, 0};
            if (map >= TENT) s = (segments){more[lane], more[row + lane], more[2 * row + lane]};
            w[lane] += c[lane];
            x[lane] = rotate_left(x[lane] + evaluate(map, y[lane], s) + w[lane], 29);
            y[lane] = rotate_left(y[lane] + evaluate(map, x[lane], s), 19);
            if (step >= 0) {
                word z = y[lane] * MULTIPLIER;
                out[step * lanes + lane] = x[lane] + (z ^ z >> 32);
            }
        }
}

/* The output of every lane at `steps` steps after the warm-up, (seeds, steps, lanes). `state`, (rows, seeds, lanes),
   holds x, y, w, an odd c and, for the maps of segments, these; it is used up. */
EXPORT void encdl_iterate(int map, word *state, word *out, int64_t seeds, int64_t lanes, int64_t warm_up, int64_t steps) {
    for (int64_t seed = 0; seed < seeds; seed++, state += lanes, out += steps * lanes) {
        int64_t row = seeds * lanes; /* each map is compiled by itself, so that its inner loop has no branches */
        if (map == LOGISTIC) iterate(LOGISTIC, state, out, row, lanes, warm_up, steps);
        if (map == CHEBYSHEV) iterate(CHEBYSHEV, state, out, row, lanes, warm_up, steps);
        if (map == TENT) iterate(TENT, state, out, row, lanes, warm_up, steps);
        if (map == PIECEWISE_LINEAR) iterate(PIECEWISE_LINEAR, state, out, row, lanes, warm_up, steps);
    }
}

#else /* a compiler without 128-bit integers: numpy does it */

EXPORT int encdl_maps_revision(void) { return 0; }

#endif
