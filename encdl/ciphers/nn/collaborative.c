/* `encdl.ciphers.nn.collaborative` on a CPU, a group of blocks at a time. */

#include <stddef.h>
#include <string.h>

#include "../../utils/compiled.h"

enum { REVISION = 1, SIDE = 6, PIXELS = SIDE * SIDE, MOST = 16, STEP = 4, REACH = 6 };

#define INLINE static inline __attribute__((always_inline))
#define ROOT 0.70710678f

EXPORT int encdl_collaborative_revision(void) { return REVISION; }

/* Squared difference of two blocks, or something above `enough` once it is reached. */
INLINE float distance(const float *one, const float *other, ptrdiff_t width, float enough) {
    float total = 0.0f;
    for (int i = 0; i < SIDE && total < enough; i++, one += width, other += width)
        for (int j = 0; j < SIDE; j++) total += (one[j] - other[j]) * (one[j] - other[j]);
    return total;
}

/* The first pixels of the `many` blocks most like the one at (y, x), itself first, the nearest next. */
INLINE void alike(const float *guide, ptrdiff_t height, ptrdiff_t width, ptrdiff_t y, ptrdiff_t x, int many, ptrdiff_t *at) {
    ptrdiff_t top = y > REACH ? y - REACH : 0, bottom = y + REACH < height - SIDE ? y + REACH : height - SIDE;
    ptrdiff_t left = x > REACH ? x - REACH : 0, right = x + REACH < width - SIDE ? x + REACH : width - SIDE;
    float near[MOST] = {-1.0f};
    int found = 1;
    at[0] = y * width + x;
    for (ptrdiff_t v = top; v <= bottom; v++)
        for (ptrdiff_t u = left; u <= right; u++) {
            ptrdiff_t place = v * width + u;
            if (place == at[0]) continue;
            float worst = found < many ? 3.4e38f : near[many - 1];
            float far = distance(guide + at[0], guide + place, width, worst);
            if (far >= worst) continue;
            int rank = found < many ? found++ : many - 1;
            for (; near[rank - 1] > far; rank--) near[rank] = near[rank - 1], at[rank] = at[rank - 1];
            near[rank] = far, at[rank] = place;
        }
}

/* The Haar transform across the blocks of a group, or back. */
INLINE void haar(float (*blocks)[PIXELS], int many, int back) {
    float moved[MOST][PIXELS];
    for (int half = back ? 1 : many / 2; back ? half < many : half > 0; half = back ? half * 2 : half / 2) {
        for (int i = 0; i < half; i++)
            for (int j = 0; j < PIXELS; j++) {
                float a = back ? blocks[i][j] : blocks[2 * i][j], b = back ? blocks[half + i][j] : blocks[2 * i + 1][j];
                moved[back ? 2 * i : i][j] = ROOT * (a + b), moved[back ? 2 * i + 1 : half + i][j] = ROOT * (a - b);
            }
        memcpy(blocks, moved, 2 * half * sizeof *moved);
    }
}

/* The cosine transform within the blocks of a group, pixel by pixel of all of them, or back. */
INLINE void cosines(float (*pixels)[MOST], const float *basis, int back) {
    float between[PIXELS][MOST];
    for (int turn = 0; turn < 2; turn++) {
        float(*from)[MOST] = turn ? between : pixels, (*to)[MOST] = turn ? pixels : between;
        for (int u = 0; u < SIDE; u++)
            for (int line = 0; line < SIDE; line++) {
                float *sum = to[u * SIDE + line]; /* transposed: the second turn puts it right */
                memset(sum, 0, MOST * sizeof *sum);
                for (int i = 0; i < SIDE; i++) {
                    float factor = back ? basis[i * SIDE + u] : basis[u * SIDE + i];
                    for (int k = 0; k < MOST; k++) sum[k] += factor * from[line * SIDE + i][k];
                }
            }
    }
}

/* A group's spectrum: pixel by pixel of all its blocks. */
INLINE void spectrum(const float *image, ptrdiff_t width, const ptrdiff_t *at, int many, const float *basis, float (*pixels)[MOST]) {
    float blocks[MOST][PIXELS];
    for (int k = 0; k < many; k++)
        for (int i = 0; i < SIDE; i++) memcpy(blocks[k] + i * SIDE, image + at[k] + i * width, SIDE * sizeof **blocks);
    haar(blocks, many, 0);
    memset(pixels, 0, PIXELS * sizeof *pixels);
    for (int k = 0; k < many; k++)
        for (int j = 0; j < PIXELS; j++) pixels[j][k] = blocks[k][j];
    cosines(pixels, basis, 0);
}

/* Adds one group's estimates, weighted, to sums, and the weights to theirs; these begin `skipped` pixels later. */
INLINE void filter(const float *noisy, const float *guide, ptrdiff_t width, const ptrdiff_t *at, int many, float power, const float *basis, const float *window, ptrdiff_t skipped, float *sums, float *weights) {
    float pixels[PIXELS][MOST], clean[PIXELS][MOST], blocks[MOST][PIXELS], kept[MOST] = {0};
    spectrum(noisy, width, at, many, basis, pixels);
    spectrum(guide, width, at, many, basis, clean);
    for (int j = 0; j < PIXELS; j++)
        for (int k = 0; k < MOST; k++) {
            float square = clean[j][k] * clean[j][k], gain = square / (square + power);
            pixels[j][k] *= gain;
            kept[k] += gain * gain;
        }
    float total = 1e-3f;
    for (int k = 0; k < MOST; k++) total += kept[k];
    cosines(pixels, basis, 1);
    for (int k = 0; k < many; k++)
        for (int j = 0; j < PIXELS; j++) blocks[k][j] = pixels[j][k] / total;
    haar(blocks, many, 1);
    for (int k = 0; k < many; k++)
        for (int i = 0; i < SIDE; i++) {
            float *sum = sums + at[k] + i * width - skipped, *weight = weights + at[k] + i * width - skipped;
            for (int j = 0; j < SIDE; j++) {
                sum[j] += window[i * SIDE + j] * blocks[k][i * SIDE + j];
                weight[j] += window[i * SIDE + j] / total;
            }
        }
}

#define ARGUMENTS const float *noisy, const float *guide, int64_t height, int64_t width, int64_t first, int64_t last, int64_t skipped, int64_t many, float power, const float *basis, const float *window, float *sums, float *weights
#define EACH \
    ptrdiff_t at[MOST]; \
    for (ptrdiff_t y = first * STEP; y < last * STEP; y += STEP) \
        for (ptrdiff_t x = 0; x <= width - SIDE; x += STEP) { \
            alike(guide, height, width, y, x, (int)many, at); \
            filter(noisy, guide, width, at, (int)many, power, basis, window, skipped * width, sums, weights); \
        }

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2,fma"))) static void wide(ARGUMENTS) { EACH }
#endif

/* The groups of the reference rows `first` to `last`; `sums` and `weights` begin with the image's row `skipped`. */
EXPORT void encdl_collaborate(ARGUMENTS) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        wide(noisy, guide, height, width, first, last, skipped, many, power, basis, window, sums, weights);
        return;
    }
#endif
    EACH
}
