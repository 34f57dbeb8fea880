/* `encdl.ciphers.nn.shrinkage` on a CPU, a row of blocks at a time: what `encdl.ciphers.nn.compiled_shrinkage` calls.

   All that lies beside a row of an image is one loop over its columns, so that a compiler makes vectors of it. */

#include <stddef.h>
#include <string.h>

#include "../../utils/compiled.h"

enum { REVISION = 1, SIDE = 4, COEFFICIENTS = SIDE * SIDE, MARGIN = SIDE - 1 };

#define INLINE static inline __attribute__((always_inline))
#define A 0.5f
#define B 0.65328148f /* sqrt(1/2) cos(pi/8) */
#define C 0.27059805f /* sqrt(1/2) cos(3 pi/8) */

EXPORT int encdl_shrinkage_revision(void) { return REVISION; }

/* Floats of memory that an image takes: two framed images, a sum and weights; and rows of coefficients. */
EXPORT int64_t encdl_shrinkage_room(int64_t height, int64_t width) {
    return (height + 2 * MARGIN) * (width + 2 * MARGIN) * 4 + (SIDE + 3 * COEFFICIENTS + 1) * (width + 2 * MARGIN);
}

/* The cosine coefficients of all blocks of four rows of `width + 2 * MARGIN` places: one at a time, `stride` apart. */
INLINE void forward(const float *rows, ptrdiff_t stride, ptrdiff_t blocks, float *columns, float *to) {
    const float *r0 = rows, *r1 = rows + stride, *r2 = r1 + stride, *r3 = r2 + stride;
    float *v0 = columns, *v1 = v0 + stride, *v2 = v1 + stride, *v3 = v2 + stride;
    for (ptrdiff_t x = 0; x < blocks + MARGIN; x++) {
        float outer = r0[x] + r3[x], inner = r1[x] + r2[x], far = r0[x] - r3[x], near = r1[x] - r2[x];
        v0[x] = A * (outer + inner);
        v1[x] = B * far + C * near;
        v2[x] = A * (outer - inner);
        v3[x] = C * far - B * near;
    }
    for (int u = 0; u < SIDE; u++) {
        const float *v = columns + u * stride;
        float *t0 = to + u * SIDE * stride, *t1 = t0 + stride, *t2 = t1 + stride, *t3 = t2 + stride;
        for (ptrdiff_t x = 0; x < blocks; x++) {
            float outer = v[x] + v[x + 3], inner = v[x + 1] + v[x + 2], far = v[x] - v[x + 3], near = v[x + 1] - v[x + 2];
            t0[x] = A * (outer + inner);
            t1[x] = B * far + C * near;
            t2[x] = A * (outer - inner);
            t3[x] = C * far - B * near;
        }
    }
}

/* Adds the blocks of these coefficients, each times its weight, to four rows; the coefficients are lost. */
INLINE void backward(float *from, ptrdiff_t stride, ptrdiff_t blocks, const float *weights, float *rows) {
    for (int v = 0; v < SIDE; v++) {
        float *c0 = from + v * stride, *c1 = c0 + SIDE * stride, *c2 = c1 + SIDE * stride, *c3 = c2 + SIDE * stride;
        for (ptrdiff_t x = 0; x < blocks; x++) {
            float w = weights[x], even = A * w * (c0[x] + c2[x]), odd = A * w * (c0[x] - c2[x]);
            float far = w * (B * c1[x] + C * c3[x]), near = w * (C * c1[x] - B * c3[x]);
            c0[x] = even + far;
            c1[x] = odd + near;
            c2[x] = odd - near;
            c3[x] = even - far;
        }
    }
    for (int i = 0; i < SIDE; i++) {
        const float *c0 = from + i * SIDE * stride, *c1 = c0 + stride, *c2 = c1 + stride, *c3 = c2 + stride;
        float *row = rows + i * stride;
        for (ptrdiff_t x = 0; x < blocks; x++) row[x] += A * (c0[x] + c2[x]) + B * c1[x] + C * c3[x];
        for (ptrdiff_t x = 0; x < blocks; x++) row[x + 1] += A * (c0[x] - c2[x]) + C * c1[x] - B * c3[x];
        for (ptrdiff_t x = 0; x < blocks; x++) row[x + 2] += A * (c0[x] - c2[x]) - C * c1[x] + B * c3[x];
        for (ptrdiff_t x = 0; x < blocks; x++) row[x + 3] += A * (c0[x] + c2[x]) - B * c1[x] - C * c3[x];
    }
}

/* The weighted mean of blocks, without the frame: sums over the weights of the 4x4 blocks that a pixel is of. */
INLINE void mean(const float *sums, const float *weights, ptrdiff_t height, ptrdiff_t width, float *line, float *to) {
    ptrdiff_t stride = width + 2 * MARGIN;
    for (ptrdiff_t y = 0; y < height; y++) {
        const float *w = weights + y * stride;
        for (ptrdiff_t x = 0; x < width + MARGIN; x++)
            line[x] = w[x] + w[x + stride] + w[x + 2 * stride] + w[x + 3 * stride];
        const float *sum = sums + (y + MARGIN) * stride + MARGIN;
        for (ptrdiff_t x = 0; x < width; x++) to[y * width + x] = sum[x] / (line[x] + line[x + 1] + line[x + 2] + line[x + 3]);
    }
}

/* An image with its outermost pixels repeated MARGIN times. */
INLINE void frame(const float *image, ptrdiff_t height, ptrdiff_t width, float *to) {
    ptrdiff_t stride = width + 2 * MARGIN;
    for (ptrdiff_t y = 0; y < height + 2 * MARGIN; y++) {
        ptrdiff_t from = y < MARGIN ? 0 : y - MARGIN < height ? y - MARGIN : height - 1;
        const float *row = image + from * width;
        float *framed = to + y * stride;
        memcpy(framed + MARGIN, row, width * sizeof *row);
        for (int x = 0; x < MARGIN; x++) framed[x] = row[0], framed[MARGIN + width + x] = row[width - 1];
    }
}

/* One image: its estimates for all strengths of noise. */
INLINE void shrink(const float *image, float *found, ptrdiff_t height, ptrdiff_t width, const float *sigmas, ptrdiff_t strengths, float threshold, float *room) {
    ptrdiff_t stride = width + 2 * MARGIN, blocks = width + MARGIN, area = (height + 2 * MARGIN) * stride;
    float *framed = room, *first = framed + area, *sums = first + area, *weights = sums + area;
    float *columns = weights + area, *noisy = columns + SIDE * stride, *clean = noisy + COEFFICIENTS * stride;
    float *kept = clean + COEFFICIENTS * stride, *line = kept + COEFFICIENTS * stride;
    frame(image, height, width, framed);
    for (ptrdiff_t strength = 0; strength < strengths; strength++, found += height * width) {
        float least = threshold * sigmas[strength], power = sigmas[strength] * sigmas[strength];
        memset(sums, 0, area * sizeof *sums);
        for (ptrdiff_t y = 0; y < height + MARGIN; y++) {
            float *w = weights + y * stride;
            forward(framed + y * stride, stride, blocks, columns, kept);
            for (ptrdiff_t x = 0; x < blocks; x++) w[x] = 1.0f;
            for (ptrdiff_t k = stride; k < COEFFICIENTS * stride; k += stride)
                for (ptrdiff_t x = 0; x < blocks; x++) {
                    float value = kept[k + x], size = value < 0 ? -value : value;
                    w[x] += size > least ? 1.0f : 0.0f;
                    kept[k + x] = size > least ? value : 0.0f;
                }
            for (ptrdiff_t x = 0; x < blocks; x++) w[x] = 1.0f / w[x];
            backward(kept, stride, blocks, w, sums + y * stride);
        }
        mean(sums, weights, height, width, line, found);
        frame(found, height, width, first);
        memset(sums, 0, area * sizeof *sums);
        for (ptrdiff_t y = 0; y < height + MARGIN; y++) {
            float *w = weights + y * stride;
            forward(first + y * stride, stride, blocks, columns, clean);
            forward(framed + y * stride, stride, blocks, columns, noisy);
            for (ptrdiff_t x = 0; x < blocks; x++) w[x] = 1.0f;
            for (ptrdiff_t k = stride; k < COEFFICIENTS * stride; k += stride)
                for (ptrdiff_t x = 0; x < blocks; x++) {
                    float square = clean[k + x] * clean[k + x], share = square / (square + power);
                    w[x] += share * share;
                    noisy[k + x] *= share;
                }
            for (ptrdiff_t x = 0; x < blocks; x++) w[x] = 1.0f / w[x];
            backward(noisy, stride, blocks, w, sums + y * stride);
        }
        mean(sums, weights, height, width, line, found);
    }
}

#define ARGUMENTS const float *images, float *found, int64_t count, int64_t height, int64_t width, const float *sigmas, int64_t strengths, float threshold, float *room
#define EACH \
    for (int64_t n = 0; n < count; n++) \
        shrink(images + n * height * width, found + n * strengths * height * width, height, width, sigmas, strengths, threshold, room);

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2,fma"))) static void wide(ARGUMENTS) { EACH }
#endif

/* Images (count, height, width) to (count, strengths, height, width). */
EXPORT void encdl_shrink(ARGUMENTS) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        wide(images, found, count, height, width, sigmas, strengths, threshold, room);
        return;
    }
#endif
    EACH
}
