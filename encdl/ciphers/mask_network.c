/* `encdl.ciphers.mask_network` on bytes, for x86 processors with AVX2: what `encdl.ciphers.compiled_ciphers` calls. With AVX-512
   mask_network_avx512.h does the same, without AVX2 and on ARM mask_network_128.h.

   Both halves of a byte of four key planes each pick their share of a sum from a table of 16 (VPSHUFB), for 32 places at
   a time: the first stage needs no bits. The second stage and the last convolution multiply bytes by weights in pairs of
   channels (VPMADDUBSW). The sums are the very integers of the float layers, and none leaves 16 bits: at most
   36 * 28 + 127 in the first stage, 36 * 7 * 64 + 127 behind it.

   A byte b of an activation stands for b - ZERO. Rows have MARGIN places before and at least MARGIN behind their own. */

#include <stddef.h>
#include <string.h>

#include "../utils/compiled.h"

enum { REVISION = 2 }; /* of the functions' form, as in `encdl.ciphers.compiled_ciphers` */

#if (defined(__x86_64__) || defined(__aarch64__)) && defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

enum { ZERO = 64, MARGIN = 16, STEP = 32, BRANCHES = 4, TAPS = 9, NIBBLES = 4, PAIRS = 2, OUTPUTS = 2, OUTSIDE = 0x80 };

static const int DILATIONS[BRANCHES] = {1, 2, 4, 8};

/* As `encdl.ciphers.compiled_ciphers` writes it, without gaps. Biases are less what ZERO adds to a sum. */
typedef struct {
    int8_t tables[BRANCHES][TAPS][NIBBLES][16]; /* of the nibbles of both phases, the low one of each first */
    int16_t first_bias[BRANCHES];
    int8_t second[BRANCHES][TAPS][PAIRS][2];
    int16_t second_bias[BRANCHES];
    int8_t out[OUTPUTS][TAPS][PAIRS][2];
    int16_t out_bias[OUTPUTS];
    int8_t wide_tables[BRANCHES][TAPS][3][64]; /* as mask_network_avx512.h has it */
} half;

static ptrdiff_t stride_of(ptrdiff_t width) { return (width + STEP - 1) / STEP * STEP + 2 * MARGIN; }

/* The nibbles of a phase of an image (height, width): two rows of `stride` bytes for each row of the phase. */
static void nibbles(const uint8_t *image, ptrdiff_t height, ptrdiff_t width, int phase, uint8_t *to, ptrdiff_t h, ptrdiff_t stride) {
    int down = phase / 2, right = phase % 2;
    for (ptrdiff_t row = 0; row < h; row++, to += NIBBLES * stride) {
        uint8_t *low = to + MARGIN, *high = low + stride;
        const uint8_t *from = image + (2 * row + down) * width + right;
        ptrdiff_t count = 2 * row + down < height ? (width - right + 1) / 2 : 0;
        memset(to, OUTSIDE, 2 * stride);
        for (ptrdiff_t x = 0; x < count; x++) {
            uint8_t byte = from[2 * x];
            low[x] = byte & 15;
            high[x] = byte >> 4;
        }
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define INLINE static inline __attribute__((always_inline)) AVX2

/* 32 sums of 16 bits, places 0..15 and 16..31, as activations. */
INLINE __m256i activations(__m256i left, __m256i right) {
    __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(left, right), 0xD8);
    bytes = _mm256_min_epi8(_mm256_max_epi8(bytes, _mm256_set1_epi8(-ZERO)), _mm256_set1_epi8(ZERO - 1));
    return _mm256_add_epi8(bytes, _mm256_set1_epi8(ZERO));
}

/* Two channels side by side. */
INLINE void store_pair(uint8_t *to, __m256i one, __m256i other) {
    __m256i a = _mm256_unpacklo_epi8(one, other), b = _mm256_unpackhi_epi8(one, other);
    _mm256_storeu_si256((__m256i *)to, _mm256_permute2x128_si256(a, b, 0x20));
    _mm256_storeu_si256((__m256i *)(to + STEP), _mm256_permute2x128_si256(a, b, 0x31));
}

INLINE __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* The first stage of a branch at `count` times 32 places. The share of a tap fits a byte; sums of odd places gather in
   `odd`, and in `both` those of even places, with 256 times those of odd ones on top. */
INLINE void first_branch(const half *net, int branch, const uint8_t *x, ptrdiff_t h, ptrdiff_t stride, ptrdiff_t row, ptrdiff_t column,
                         int count, __m256i *found) {
    const __m256i middle = _mm256_set1_epi8(-128);
    ptrdiff_t dilation = DILATIONS[branch];
    __m256i both[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()}, odd[2] = {both[0], both[0]};
    int bias = net->first_bias[branch];
    for (int down = 0; down < 3; down++) {
        ptrdiff_t y = row + (down - 1) * dilation;
        if (y < 0 || y >= h) continue; /* outside is 0 */
        bias -= 3 * 128;
        const uint8_t *p = x + y * NIBBLES * stride + MARGIN + column - dilation;
        for (int tap = 3 * down; tap < 3 * down + 3; tap++, p += dilation) {
            __m256i sum[2] = {middle, middle}; /* 128, and at most 28 for each nibble */
#pragma GCC unroll 4
            for (int n = 0; n < NIBBLES; n++) {
                __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)net->tables[branch][tap][n]));
#pragma GCC unroll 2
                for (int i = 0; i < count; i++)
                    sum[i] = _mm256_add_epi8(sum[i], _mm256_shuffle_epi8(table, load(p + n * stride + i * STEP)));
            }
#pragma GCC unroll 2
            for (int i = 0; i < count; i++) {
                both[i] = _mm256_add_epi16(both[i], sum[i]);
                odd[i] = _mm256_add_epi16(odd[i], _mm256_srli_epi16(sum[i], 8));
            }
        }
    }
    __m256i low = _mm256_set1_epi16(-ZERO), high = _mm256_set1_epi16(ZERO - 1), less = _mm256_set1_epi16(bias);
#pragma GCC unroll 2
    for (int i = 0; i < count; i++) {
        __m256i even = _mm256_add_epi16(_mm256_sub_epi16(both[i], _mm256_slli_epi16(odd[i], 8)), less);
        __m256i other = _mm256_add_epi16(odd[i], less);
        even = _mm256_min_epi16(_mm256_max_epi16(even, low), high);
        other = _mm256_min_epi16(_mm256_max_epi16(other, low), high);
        even = _mm256_and_si256(even, _mm256_set1_epi16(255));
        found[i] = _mm256_add_epi8(_mm256_or_si256(even, _mm256_slli_epi16(other, 8)), _mm256_set1_epi8(ZERO));
    }
}

/* Sums of a convolution of pairs at 32 places, with the weights of `outputs` outputs. */
INLINE void sums_of_pairs(const int8_t weights[][TAPS][PAIRS][2], const int16_t *biases, int outputs, ptrdiff_t dilation, const uint8_t *x,
                          ptrdiff_t h, ptrdiff_t stride, ptrdiff_t row, ptrdiff_t column, __m256i (*sums)[2]) {
    static const uint8_t zeros[2 * (STEP + 2 * MARGIN)] = {[0 ... 2 * (STEP + 2 * MARGIN) - 1] = ZERO};
#pragma GCC unroll 2
    for (int i = 0; i < outputs; i++) sums[i][0] = sums[i][1] = _mm256_set1_epi16(biases[i]);
    for (int down = 0; down < 3; down++) {
        ptrdiff_t y = row + (down - 1) * dilation;
        int inside = y >= 0 && y < h;
        for (int pair = 0; pair < PAIRS; pair++) {
            const uint8_t *p = inside ? x + 2 * ((y * PAIRS + pair) * stride + MARGIN + column - dilation) : zeros;
            for (int tap = 3 * down; tap < 3 * down + 3; tap++, p += 2 * dilation) {
                __m256i left = load(p), right = load(p + STEP);
#pragma GCC unroll 2
                for (int i = 0; i < outputs; i++) {
                    int16_t two;
                    memcpy(&two, weights[i][tap][pair], 2);
                    __m256i weight = _mm256_set1_epi16(two);
                    sums[i][0] = _mm256_add_epi16(sums[i][0], _mm256_maddubs_epi16(left, weight));
                    sums[i][1] = _mm256_add_epi16(sums[i][1], _mm256_maddubs_epi16(right, weight));
                }
            }
        }
    }
}

/* Zeros around the places of all rows of pairs. */
static void surround(uint8_t *x, ptrdiff_t h, ptrdiff_t w, ptrdiff_t stride) {
    for (ptrdiff_t line = 0; line < h * PAIRS; line++, x += 2 * stride) {
        memset(x, ZERO, 2 * MARGIN);
        memset(x + 2 * (MARGIN + w), ZERO, 2 * (stride - MARGIN - w));
    }
}

INLINE void first_places(const half *net, const uint8_t *x, uint8_t *y, ptrdiff_t h, ptrdiff_t stride, ptrdiff_t row, ptrdiff_t column,
                         int count) {
    __m256i channels[BRANCHES][2];
#pragma GCC unroll 4
    for (int branch = 0; branch < BRANCHES; branch++) first_branch(net, branch, x, h, stride, row, column, count, channels[branch]);
    for (int i = 0; i < count; i++) {
        uint8_t *to = y + 2 * (row * PAIRS * stride + MARGIN + column + i * STEP);
        store_pair(to, channels[0][i], channels[1][i]);
        store_pair(to + 2 * stride, channels[2][i], channels[3][i]);
    }
}

static AVX2 void first_stage(const half *net, const uint8_t *x, uint8_t *y, ptrdiff_t h, ptrdiff_t w, ptrdiff_t stride) {
    for (ptrdiff_t row = 0; row < h; row++) {
        ptrdiff_t column = 0;
        for (; column + STEP < w; column += 2 * STEP) first_places(net, x, y, h, stride, row, column, 2);
        if (column < w) first_places(net, x, y, h, stride, row, column, 1);
    }
    surround(y, h, w, stride);
}

static AVX2 void second_stage(const half *net, const uint8_t *x, uint8_t *y, ptrdiff_t h, ptrdiff_t w, ptrdiff_t stride) {
    for (ptrdiff_t row = 0; row < h; row++)
        for (ptrdiff_t column = 0; column < w; column += STEP) {
            __m256i channels[BRANCHES];
#pragma GCC unroll 4
            for (int branch = 0; branch < BRANCHES; branch++) {
                __m256i sums[1][2];
                sums_of_pairs(net->second + branch, net->second_bias + branch, 1, DILATIONS[branch], x, h, stride, row, column, sums);
                channels[branch] = activations(_mm256_srai_epi16(sums[0][0], 4), _mm256_srai_epi16(sums[0][1], 4));
            }
            uint8_t *to = y + 2 * (row * PAIRS * stride + MARGIN + column);
            store_pair(to, channels[0], channels[1]);
            store_pair(to + 2 * stride, channels[2], channels[3]);
        }
    surround(y, h, w, stride);
}

/* The last convolution, and its low bytes added to those of two phases of `keys`: `mask` gets whole rows, in which the
   other two phases are as they are in `keys`. Of the two, one lies in even rows and one in odd ones. */
static AVX2 void last_stage(const half *net, const uint8_t *x, const uint8_t *keys, uint8_t *mask, const int phases[OUTPUTS],
                            ptrdiff_t height, ptrdiff_t width, ptrdiff_t stride) {
    ptrdiff_t h = (height + 1) / 2, w = (width + 1) / 2;
    __m256i low = _mm256_set1_epi16(255);
    for (ptrdiff_t row = 0; row < h; row++)
        for (ptrdiff_t column = 0; column < w; column += STEP) {
            __m256i sums[OUTPUTS][2];
            sums_of_pairs(net->out, net->out_bias, OUTPUTS, 1, x, h, stride, row, column, sums);
            for (int output = 0; output < OUTPUTS; output++) {
                ptrdiff_t line = 2 * row + phases[output] / 2, start = line * width + 2 * column, count = width - 2 * column;
                if (line >= height) continue;
                __m256i left = _mm256_and_si256(sums[output][0], low), right = _mm256_and_si256(sums[output][1], low);
                if (phases[output] % 2) left = _mm256_slli_epi16(left, 8), right = _mm256_slli_epi16(right, 8);
                if (count >= 2 * STEP) {
                    _mm256_storeu_si256((__m256i *)(mask + start), _mm256_add_epi8(left, load(keys + start)));
                    _mm256_storeu_si256((__m256i *)(mask + start + STEP), _mm256_add_epi8(right, load(keys + start + STEP)));
                } else {
                    uint8_t bytes[2 * STEP];
                    _mm256_storeu_si256((__m256i *)bytes, left);
                    _mm256_storeu_si256((__m256i *)(bytes + STEP), right);
                    for (ptrdiff_t i = 0; i < count; i++) mask[start + i] = keys[start + i] + bytes[i];
                }
            }
        }
}

#include "mask_network_avx512.h"

/* One round: network `net` reads two phases of `from`, and its numbers are added to two others of `keys`. */
static void one_round(const half *net, const uint8_t *from, const int read[2], const uint8_t *keys, uint8_t *mask, const int written[2],
                      ptrdiff_t height, ptrdiff_t width, uint8_t *room) {
    ptrdiff_t h = (height + 1) / 2, w = (width + 1) / 2, stride = stride_of(w);
    uint8_t *planes = room, *first = planes + NIBBLES * h * stride, *second = first + 2 * PAIRS * h * stride;
    for (int i = 0; i < 2; i++) nibbles(from, height, width, read[i], planes + 2 * i * stride, h, stride);
    first_stage(net, planes, first, h, w, stride);
    second_stage(net, first, second, h, w, stride);
    last_stage(net, second, keys, mask, written, height, width, stride);
}

#endif

#include "mask_network_128.h"

typedef void a_round(const half *, const uint8_t *, const int *, const uint8_t *, uint8_t *, const int *, ptrdiff_t, ptrdiff_t, uint8_t *);

/* What this processor can do with vectors of at most that kind: 0 for 128 bits, 1 for AVX2, 2 for AVX-512. */
static a_round *round_of(int vectors) {
#if defined(__x86_64__)
    if (vectors >= 2 && has_avx512()) return wide_round;
    if (vectors >= 1 && __builtin_cpu_supports("avx2")) return one_round;
#endif
    (void)vectors;
    return has_128() ? round_128 : NULL;
}

EXPORT int encdl_mask_revision(void) { return round_of(2) ? REVISION : 0; }

/* Bytes of `room` in encdl_masks, for each thread. */
EXPORT int64_t encdl_mask_room(int64_t height, int64_t width) {
    int64_t h = (height + 1) / 2, w = (width + 1) / 2, narrow = (NIBBLES + 2 * 2 * BRANCHES) * h * stride_of(w) + 1, wide = 0;
#if defined(__x86_64__)
    wide = room_of_indices(h, w) + room_of_stages(h, w) + BORDER;
#endif
    return narrow > wide ? narrow : wide;
}

typedef void parallel(void (*function)(void *), void *data, unsigned threads, unsigned flags); /* GOMP_parallel's */

typedef struct {
    const half *networks; /* F, G */
    const uint8_t *keys;
    uint8_t *masks, *room;
    int64_t count, height, width;
    int vectors;
    int64_t next, threads_in; /* the first image that nobody has taken, and how many threads have come */
} job;

static void do_images(void *shared) {
    static const int A[2] = {0, 3}, B[2] = {1, 2};
    job *of = shared;
    int64_t size = of->height * of->width;
    a_round *round = round_of(of->vectors);
    uint8_t *room = of->room + __atomic_fetch_add(&of->threads_in, 1, __ATOMIC_RELAXED) * encdl_mask_room(of->height, of->width);
    for (int64_t i; (i = __atomic_fetch_add(&of->next, 1, __ATOMIC_RELAXED)) < of->count;) {
        const uint8_t *keys = of->keys + i * size;
        uint8_t *mask = of->masks + i * size;
        round(of->networks, keys, B, keys, mask, A, of->height, of->width, room);
        round(of->networks + 1, mask, A, mask, mask, B, of->height, of->width, room);
    }
}

/* The masks of `count` images of key bytes (count, height, width). Up to `threads` threads take image by image if there
   is a `together`; `room` holds what each of them needs. */
EXPORT void encdl_masks(const half *networks, const uint8_t *keys, uint8_t *masks, int64_t count, int64_t height, int64_t width,
                        uint8_t *room, parallel *together, int threads, int vectors) {
    job work = {networks, keys, masks, room, count, height, width, vectors, 0, 0};
    if (threads > 1 && count > 1 && together)
        together(do_images, &work, threads, 0);
    else
        do_images(&work);
}

#else /* another processor or compiler: the float layers work */

EXPORT int encdl_mask_revision(void) { return 0; }

#endif
