/* The mask network for processors with vectors of 16 bytes that look bytes up in a table: ARM's NEON, and SSSE3. What
   mask_network.c does with AVX2, 16 places at a time. But for the lookup it is plain C on vectors of GCC and Clang.

   Activations are words, which saves widening them at every tap, channel by channel: BRANCHES rows for each row of places. */

typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint16_t words8 __attribute__((vector_size(16)));
typedef int16_t signed8 __attribute__((vector_size(16)));

enum { PLACES = 16, QUARTERS = 4 };

#if defined(__aarch64__)
#include <arm_neon.h>
#define V128
static int has_128(void) { return 1; }
#else
#define V128 __attribute__((target("ssse3")))
static int has_128(void) { return __builtin_cpu_supports("ssse3"); }
#endif
#define INLINE_128 static inline __attribute__((always_inline)) V128

/* Of each index from 0 to 15 that byte of a table, of OUTSIDE 0. */
INLINE_128 bytes16 lookup(bytes16 table, bytes16 index) {
#if defined(__aarch64__)
    return (bytes16)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)index);
#else
    return (bytes16)_mm_shuffle_epi8((__m128i)table, (__m128i)index);
#endif
}

INLINE_128 bytes16 load_16(const void *p) {
    bytes16 found;
    memcpy(&found, p, sizeof found);
    return found;
}

static void zero_128(uint16_t *to, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++) to[i] = ZERO;
}

/* Sums as activations, 0 to 127. */
INLINE_128 words8 activations_128(words8 sums) {
    signed8 x = (signed8)sums + ZERO, below = x < 0, above = x > 2 * ZERO - 1;
    return (words8)((x & ~below & ~above) | (above & (2 * ZERO - 1)));
}

INLINE_128 void first_of_128(const half *net, int branch, const uint8_t *x, ptrdiff_t h, ptrdiff_t stride, ptrdiff_t row,
                             ptrdiff_t column, uint16_t *to) {
    ptrdiff_t dilation = DILATIONS[branch];
    words8 both = {0}, odd = {0}; /* as with AVX2 */
    int bias = net->first_bias[branch];
    for (int down = 0; down < 3; down++) {
        ptrdiff_t y = row + (down - 1) * dilation;
        if (y < 0 || y >= h) continue; /* outside is 0 */
        bias -= 3 * 128;
        const uint8_t *p = x + y * NIBBLES * stride + MARGIN + column - dilation;
        for (int tap = 3 * down; tap < 3 * down + 3; tap++, p += dilation) {
            bytes16 sum = (bytes16){0} + 128;
#pragma GCC unroll 4
            for (int n = 0; n < NIBBLES; n++) sum += lookup(load_16(net->tables[branch][tap][n]), load_16(p + n * stride));
            both += (words8)sum;
            odd += (words8)sum >> 8;
        }
    }
    words8 less = (words8){0} + (uint16_t)bias, even = activations_128(both - (odd << 8) + less), other = activations_128(odd + less);
    for (int i = 0; i < PLACES / 2; i++) to[2 * i] = even[i], to[2 * i + 1] = other[i];
}

/* Sums of a convolution of activations at 32 places. */
INLINE_128 void sums_128(const int8_t weights[TAPS][PAIRS][2], int16_t bias, ptrdiff_t dilation, const uint16_t *x, ptrdiff_t h,
                         ptrdiff_t stride, ptrdiff_t row, ptrdiff_t column, words8 sums[QUARTERS]) {
    static const uint16_t zeros[STEP + 2 * MARGIN] = {[0 ... STEP + 2 * MARGIN - 1] = ZERO};
    for (int i = 0; i < QUARTERS; i++) sums[i] = (words8){0} + (uint16_t)bias;
    for (int down = 0; down < 3; down++) {
        ptrdiff_t y = row + (down - 1) * dilation;
        for (int channel = 0; channel < BRANCHES; channel++) {
            const uint16_t *p = y >= 0 && y < h ? x + (y * BRANCHES + channel) * stride + MARGIN + column - dilation : zeros;
#pragma GCC unroll 3
            for (int tap = 3 * down; tap < 3 * down + 3; tap++, p += dilation) {
                words8 weight = (words8){0} + (uint16_t)weights[tap][channel / 2][channel % 2];
#pragma GCC unroll 4
                for (int i = 0; i < QUARTERS; i++) sums[i] += (words8)load_16(p + 8 * i) * weight;
            }
        }
    }
}

static V128 void stages_128(const half *net, const uint8_t *x, uint16_t *first, uint16_t *second, ptrdiff_t h, ptrdiff_t w,
                            ptrdiff_t stride) {
    zero_128(first, 2 * BRANCHES * h * stride); /* the second one lies behind it */
    for (ptrdiff_t row = 0; row < h; row++)
        for (int branch = 0; branch < BRANCHES; branch++) {
            uint16_t *to = first + (row * BRANCHES + branch) * stride + MARGIN;
            for (ptrdiff_t column = 0; column < w; column += PLACES) first_of_128(net, branch, x, h, stride, row, column, to + column);
            zero_128(to + w, stride - MARGIN - w);
        }
    for (ptrdiff_t row = 0; row < h; row++)
        for (int branch = 0; branch < BRANCHES; branch++) {
            uint16_t *to = second + (row * BRANCHES + branch) * stride + MARGIN;
            for (ptrdiff_t column = 0; column < w; column += STEP) {
                words8 sums[QUARTERS];
                sums_128(net->second[branch], net->second_bias[branch], DILATIONS[branch], first, h, stride, row, column, sums);
                for (int i = 0; i < QUARTERS; i++) sums[i] = activations_128((words8)((signed8)sums[i] >> 4));
                memcpy(to + column, sums, sizeof sums);
            }
            zero_128(to + w, stride - MARGIN - w);
        }
}

/* As last_stage. */
static V128 void last_stage_128(const half *net, const uint16_t *x, const uint8_t *keys, uint8_t *mask, const int phases[OUTPUTS],
                                ptrdiff_t height, ptrdiff_t width, ptrdiff_t stride) {
    ptrdiff_t h = (height + 1) / 2, w = (width + 1) / 2;
    for (ptrdiff_t row = 0; row < h; row++)
        for (int output = 0; output < OUTPUTS; output++) {
            ptrdiff_t line = 2 * row + phases[output] / 2;
            if (line >= height) continue;
            for (ptrdiff_t column = 0; column < w; column += STEP) {
                words8 sums[QUARTERS];
                sums_128(net->out[output], net->out_bias[output], 1, x, h, stride, row, column, sums);
                ptrdiff_t start = line * width + 2 * column, count = width - 2 * column;
                uint8_t bytes[2 * STEP];
                for (int i = 0; i < QUARTERS; i++) sums[i] = phases[output] % 2 ? sums[i] << 8 : sums[i] & 255;
                memcpy(bytes, sums, sizeof bytes);
                if (count >= 2 * STEP)
                    for (int i = 0; i < 2 * STEP; i++) mask[start + i] = keys[start + i] + bytes[i];
                else
                    for (ptrdiff_t i = 0; i < count; i++) mask[start + i] = keys[start + i] + bytes[i];
            }
        }
}

static void round_128(const half *net, const uint8_t *from, const int read[2], const uint8_t *keys, uint8_t *mask, const int written[2],
                      ptrdiff_t height, ptrdiff_t width, uint8_t *room) {
    ptrdiff_t h = (height + 1) / 2, w = (width + 1) / 2, stride = stride_of(w);
    uint8_t *planes = room + (uintptr_t)room % 2; /* words lie at even addresses */
    uint16_t *first = (uint16_t *)(planes + NIBBLES * h * stride), *second = first + BRANCHES * h * stride;
    for (int i = 0; i < 2; i++) nibbles(from, height, width, read[i], planes + 2 * i * stride, h, stride);
    stages_128(net, planes, first, second, h, w, stride);
    last_stage_128(net, second, keys, mask, written, height, width, stride);
}
