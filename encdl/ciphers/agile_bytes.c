/* The masks of the agile cipher on bytes: what `encdl.ciphers.agile_bytes` calls.

   What goes into an integer layer fits in seven bits and its weights in four (`encdl.nn.integer`). So AVX2 multiplies
   32 of them at a time (VPMADDUBSW) and adds in 16 bits, for as many channels as can never leave these (`group`), then
   in 32. The sums are the very integers of the float layers.

   Channels go in pairs, uint8 (height, pairs, stride, 2): a pixel's two channels side by side, and in each row MARGIN
   pixels of zeros before and at least MARGIN behind its `width` pixels. The byte b stands for b - ZERO. */

#include <stddef.h>
#include <string.h>

#include "../compiled.h"

enum { REVISION = 2 }; /* of the functions' form, as in `encdl.ciphers.agile_bytes` */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

enum { ZERO = 64, TOP = 127, MARGIN = 16, STEP = 32, BLOCK = 6, MAX_BRANCHES = 4, MAX_CHANNELS = 1024 };

#define AVX2 __attribute__((target("avx2")))
#define INLINE static inline __attribute__((always_inline)) AVX2
#define EACH(i, count) _Pragma("GCC unroll 8") for (int i = 0; i < (count); i++)

/* Parallel dilated 3x3 convolutions of one input, as the fields of `encdl.ciphers.agile_bytes._Stage`. */
typedef struct {
    const int8_t *weights; /* (branches, pairs, 9 taps, outputs, 2) */
    const int32_t *bias;   /* (branches, outputs), less what ZERO adds to a sum */
    int32_t dilations[MAX_BRANCHES];
    int32_t branches, outputs, pairs;
    int32_t group; /* pairs whose sums are kept in 16 bits */
    int32_t shift; /* bits that are taken off a sum */
    int32_t last;  /* 0: clamp to seven bits and write pairs; 1: keep the low byte and write (channels, height, width) */
} stage;

/* As the fields of `encdl.ciphers.agile_bytes._Networks`. */
typedef struct {
    stage field[3], coupling[3];
    int32_t planes; /* of a pixel */
    int32_t level;  /* of a key bit among the coupling's features */
} networks;

EXPORT int encdl_agile_revision(void) { return __builtin_cpu_supports("avx2") ? REVISION : 0; }

static ptrdiff_t stride_of(int width) { return (width + STEP - 1) / STEP * STEP + 2 * MARGIN; }

/* Zeros around the pixels of a row of pairs. */
static void surround(uint8_t *row, int width) {
    memset(row, ZERO, 2 * MARGIN);
    memset(row + 2 * (MARGIN + width), ZERO, 2 * (stride_of(width) - MARGIN - width));
}

/* ---- What goes into the networks: a row of it. */

/* The planes (count, height, width) in {0, 1} of phases 1, 2 and 3 as -1 and 1; outside the picture they are 0. */
static AVX2 void signs(const uint8_t *planes, uint8_t *y, int count, int height, int width, int row) {
    static const uint8_t nothing[2] = {0, 0};
    int w = (width + 1) / 2, channels = 3 * count;
    for (int pair = 0; pair < (channels + 1) / 2; pair++, y += 2 * stride_of(w)) {
        const uint8_t *from[2];
        int step[2], right[2];
        for (int half = 0; half < 2; half++) {
            int channel = 2 * pair + half, phase = channel / count + 1, y0 = 2 * row + phase / 2;
            int inside = channel < channels && y0 < height;
            from[half] = inside ? planes + ((ptrdiff_t)(channel % count) * height + y0) * width : nothing;
            step[half] = inside ? 2 : 0;
            right[half] = phase % 2;
        }
        surround(y, w);
        uint8_t *to = y + 2 * MARGIN;
        for (int i = 0; i < width / 2; i++) {
            uint16_t a, b; /* two neighbours: one of them is of the phase */
            memcpy(&a, from[0] + i * step[0], 2);
            memcpy(&b, from[1] + i * step[1], 2);
            uint16_t both = (ZERO - 1) * 0x101 + 2 * (a >> 8 * right[0] & 1) + 0x200 * (b >> 8 * right[1] & 1);
            memcpy(to + 2 * i, &both, 2);
        }
        if (width % 2) /* the last column has no right neighbour */
            for (int half = 0; half < 2; half++)
                to[width - 1 + half] = ZERO - 1 + 2 * (right[half] ? 0 : from[half][width / 2 * step[half]]);
        if (2 * pair + 1 == channels) /* beside the last of an odd number */
            for (int i = 0; i < w; i++) to[2 * i + 1] = ZERO;
    }
}

/* Half the triangular wave of the circle of 256 levels, in -32..32. */
INLINE int16_t wave(int16_t level) {
    int16_t x = (level & 255) - 128;
    return (int16_t)((x < 0 ? -x : x) - 64) >> 1;
}

/* Two bits of `mask` from `bit` on sign two numbers; as bytes. */
INLINE uint16_t sign(int16_t mask, int bit, int16_t a, int16_t b) {
    int16_t first = -(mask >> bit & 1), second = -(mask >> (bit + 1) & 1); /* all ones for the sign + */
    first = (a ^ ~first) - ~first;
    second = (b ^ ~second) - ~second;
    return (uint16_t)(first + ZERO) | (uint16_t)(second + ZERO) << 8;
}

/* `encdl.ciphers.agile_networks.signed_features` of phase 0 of a picture, and of its mask; `level` stands for a bit. A
   clear picture gets the mask on top first. */
static AVX2 void features(const uint8_t *picture, const uint8_t *mask, uint8_t *y, int level, int clear, int width) {
    for (int pair = 0; pair < 4; pair++) {
        uint8_t *waves = y + 2 * pair * stride_of(width), *bits = y + 2 * (pair + 4) * stride_of(width);
        surround(waves, width);
        surround(bits, width);
        for (int i = 0; i < width; i++) {
            uint8_t masked = picture[2 * i] + (clear ? mask[i] : 0);
            uint16_t one = sign(mask[i], 2 * pair, wave(masked), wave(masked + 64));
            uint16_t other = sign(mask[i], 2 * pair, level, level);
            memcpy(waves + 2 * (MARGIN + i), &one, 2);
            memcpy(bits + 2 * (MARGIN + i), &other, 2);
        }
    }
}

/* ---- What comes out: masks from the bytes that the planes spell, plane `bit % count` giving each bit. */

/* A row of phase 0's mask: its bytes, and F on top. */
static AVX2 void first_mask(const uint8_t *planes, const uint8_t *field, uint8_t *y, int count, int height, int width, int row) {
    int w = (width + 1) / 2;
    memcpy(y, field, w);
    for (int bit = 0; bit < 8; bit++) {
        const uint8_t *plane = planes + ((ptrdiff_t)(bit % count) * height + 2 * row) * width;
        for (int i = 0; i < w; i++) y[i] += plane[2 * i] << bit;
    }
}

/* Row `row` of the whole mask: the mask of phase 0, and of the others the bytes with E, (3, h, w), on top. */
static AVX2 void whole_mask(const uint8_t *planes, const uint8_t *first, const uint8_t *others, uint8_t *y, int count,
                            int height, int width, int row) {
    ptrdiff_t h = (height + 1) / 2, w = (width + 1) / 2, line = row / 2 * w;
    const uint8_t *left = row % 2 ? others + h * w + line : first + line;
    const uint8_t *right = others + (row % 2 ? 2 * h * w : 0) + line;
    memset(y, 0, width);
    for (int bit = 0; bit < 8; bit++) {
        const uint8_t *plane = planes + ((ptrdiff_t)(bit % count) * height + row) * width;
        for (int i = 0; i < width; i++) y[i] += plane[i] << bit;
    }
    for (int i = 0; i < w; i++) y[2 * i] = left[i] + (row % 2 ? y[2 * i] : 0);
    for (int i = 0; i < width / 2; i++) y[2 * i + 1] += right[i];
}

/* ---- The convolutions. */

/* Add to `sums` those of `count` outputs at STEP pixels; `count` is known when this is compiled, and the sums of a
   group of channels stay in the processor's registers. */
INLINE void add_sums(int count, const stage *s, int branch, int output, const uint8_t *x, int height, ptrdiff_t stride,
                     int row, int column, int32_t sums[BLOCK][STEP]) {
    uint8_t outside[4 * MARGIN + 2 * STEP];
    memset(outside, ZERO, sizeof outside);
    int dilation = s->dilations[branch];
    const int8_t *weights = s->weights + 2 * ((ptrdiff_t)branch * s->pairs * 9 * s->outputs + output);
    for (int first = 0; first < s->pairs; first += s->group) {
        __m256i part[BLOCK][2];
        EACH(o, count) part[o][0] = part[o][1] = _mm256_setzero_si256();
        for (int pair = first; pair < first + s->group && pair < s->pairs; pair++)
            for (int tap_row = 0; tap_row < 3; tap_row++) {
                int y0 = row + (tap_row - 1) * dilation;
                const uint8_t *p = outside;
                const int8_t *w = weights + 2 * (ptrdiff_t)(pair * 9 + tap_row * 3) * s->outputs;
                if (y0 >= 0 && y0 < height)
                    p = x + 2 * (((ptrdiff_t)y0 * s->pairs + pair) * stride + MARGIN + column - dilation);
#pragma GCC unroll 1
                for (int tap = 0; tap < 3; tap++, p += 2 * dilation, w += 2 * s->outputs) {
                    __m256i left = _mm256_loadu_si256((const __m256i *)p);
                    __m256i right = _mm256_loadu_si256((const __m256i *)(p + STEP));
                    EACH(o, count) {
                        int16_t two;
                        memcpy(&two, w + 2 * o, 2);
                        __m256i weight = _mm256_set1_epi16(two);
                        part[o][0] = _mm256_add_epi16(part[o][0], _mm256_maddubs_epi16(left, weight));
                        part[o][1] = _mm256_add_epi16(part[o][1], _mm256_maddubs_epi16(right, weight));
                    }
                }
            }
        EACH(o, count) EACH(half, 2) {
            __m256i *sum = (__m256i *)(sums[o] + STEP / 2 * half);
            __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(part[o][half]));
            __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(part[o][half], 1));
            _mm256_storeu_si256(sum, _mm256_add_epi32(_mm256_loadu_si256(sum), low));
            _mm256_storeu_si256(sum + 1, _mm256_add_epi32(_mm256_loadu_si256(sum + 1), high));
        }
    }
}

/* The bytes of one output at STEP pixels. */
static AVX2 void finish(const stage *s, const int32_t sums[STEP], uint8_t to[STEP]) {
    for (int i = 0; i < STEP; i++) {
        int32_t value = sums[i] >> s->shift;
        int32_t byte = value < -ZERO ? 0 : value > TOP - ZERO ? TOP : value + ZERO;
        to[i] = (uint8_t)(s->last ? value : byte);
    }
}

/* Two channels at STEP pixels, side by side. */
static AVX2 void interleave(const uint8_t one[STEP], const uint8_t other[STEP], uint8_t to[2 * STEP]) {
    for (int i = 0; i < STEP; i++) {
        uint16_t both = one[i] | other[i] << 8;
        memcpy(to + 2 * i, &both, 2);
    }
}

/* Have what the widest tap of the next columns reads come into the cache: so many rows are more than the processor
   foresees by itself. */
static void fetch(const stage *s, const uint8_t *x, int height, ptrdiff_t stride, int row, int column) {
    int reach = 0;
    for (int branch = 0; branch < s->branches; branch++)
        if (s->dilations[branch] > reach) reach = s->dilations[branch];
    ptrdiff_t below = row + reach < height ? row + reach : height - 1;
    for (int pair = 0; pair < s->pairs; pair++) {
        const uint8_t *p = x + 2 * ((below * s->pairs + pair) * stride + column + 2 * STEP);
        __builtin_prefetch(p);
        __builtin_prefetch(p + 2 * STEP);
    }
}

/* Rows of a stage's result for a picture x; y: its pairs, or bytes (channels, height, width) of the last stage. */
static AVX2 void convolve(const stage *s, const uint8_t *x, uint8_t *y, int height, int width, int top, int bottom) {
    ptrdiff_t stride = stride_of(width);
    int channels = s->branches * s->outputs, pairs = (channels + 1) / 2;
    uint8_t bytes[MAX_CHANNELS + 1][STEP];
    memset(bytes[channels], ZERO, STEP); /* beside the last of an odd number */
    for (int row = top; row < bottom; row++)
        for (int column = 0; column < width; column += STEP) {
            int there = width - column < STEP ? width - column : STEP;
            fetch(s, x, height, stride, row, column);
            for (int branch = 0; branch < s->branches; branch++)
                for (int output = 0, count; output < s->outputs; output += count) {
                    int32_t sums[BLOCK][STEP];
                    int left = s->outputs - output, first = branch * s->outputs + output;
                    count = left >= 6 ? 6 : left >= 3 ? 3 : 1;
                    for (int o = 0; o < count; o++)
                        for (int i = 0; i < STEP; i++) sums[o][i] = s->bias[first + o];
                    if (count == 6) add_sums(6, s, branch, output, x, height, stride, row, column, sums);
                    if (count == 3) add_sums(3, s, branch, output, x, height, stride, row, column, sums);
                    if (count == 1) add_sums(1, s, branch, output, x, height, stride, row, column, sums);
                    for (int o = 0; o < count; o++) finish(s, sums[o], bytes[first + o]);
                }
            if (s->last)
                for (int c = 0; c < channels; c++)
                    memcpy(y + ((ptrdiff_t)c * height + row) * width + column, bytes[c], there);
            else
                for (int pair = 0; pair < pairs; pair++)
                    interleave(bytes[2 * pair], bytes[2 * pair + 1],
                               y + 2 * (((ptrdiff_t)row * pairs + pair) * stride + MARGIN + column));
        }
    if (!s->last)
        for (ptrdiff_t line = (ptrdiff_t)top * pairs; line < (ptrdiff_t)bottom * pairs; line++)
            surround(y + 2 * line * stride, width);
}

/* ---- The work on a picture, step by step; threads that share a step take band by band of its rows. */

enum { SIGNS, FEATURES, CONVOLVE, FIRST_MASK, WHOLE_MASK };

typedef void parallel(void (*function)(void *), void *data, unsigned threads, unsigned flags); /* GOMP_parallel's */

typedef struct {
    const networks *net;
    const uint8_t *planes, *picture; /* (count, height, width), (height, width) */
    int height, width, h, w;         /* of the picture, of a phase */
    int clear;                       /* whether the picture is no ciphertext */
    parallel *together;
    int threads;
} job;

typedef struct {
    const job *of;
    int kind;
    int rows, row_count, next; /* of a band at the most, of the result, the first band that nobody has taken */
    const stage *stage;        /* of CONVOLVE */
    const uint8_t *x, *second; /* in the order in which the functions above take them */
    uint8_t *y;
} step;

static void do_row(const step *s, int row) {
    const job *of = s->of;
    int count = of->net->planes;
    ptrdiff_t line = (ptrdiff_t)row * of->w, pairs = 2 * row * stride_of(of->w);
    if (s->kind == SIGNS) signs(of->planes, s->y + (3 * count + 1) / 2 * pairs, count, of->height, of->width, row);
    if (s->kind == FEATURES)
        features(of->picture + 2 * (ptrdiff_t)row * of->width, s->x + line, s->y + 8 * pairs, of->net->level, of->clear, of->w);
    if (s->kind == FIRST_MASK) first_mask(of->planes, s->x + line, s->y + line, count, of->height, of->width, row);
    if (s->kind == WHOLE_MASK)
        whole_mask(of->planes, s->x, s->second, s->y + (ptrdiff_t)row * of->width, count, of->height, of->width, row);
}

static void do_bands(void *shared) {
    step *s = shared;
    for (int top; (top = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED) * s->rows) < s->row_count;) {
        int bottom = top + s->rows < s->row_count ? top + s->rows : s->row_count;
        if (s->kind == CONVOLVE)
            convolve(s->stage, s->x, s->y, s->of->h, s->of->w, top, bottom);
        else
            for (int row = top; row < bottom; row++) do_row(s, row);
    }
}

/* A second thread has to take over this many products, about 0.1 ms of them, or takes as long to wake as it saves. */
#define WORTH_A_THREAD 4194304.0

static void do_step(step s) {
    const job *of = s.of;
    double products = s.kind == CONVOLVE ? 18.0 * s.stage->pairs * s.stage->branches * s.stage->outputs : 16;
    products *= (double)of->h * of->w;
    int threads = products < of->threads * WORTH_A_THREAD ? (int)(products / WORTH_A_THREAD) : of->threads;
    s.row_count = s.kind == WHOLE_MASK ? of->height : of->h;
    s.rows = s.row_count;
    if (threads < 2 || !of->together) {
        do_bands(&s);
        return;
    }
    /* Bands of many rows, as neighbours share their input, but of so few that the threads end together. */
    s.rows = (s.row_count + 6 * threads - 1) / (6 * threads);
    if (s.rows < 8) s.rows = 8;
    of->together(do_bands, &s, threads, 0);
}

/* A network: from x in pairs to the bytes y, by way of the room at `other`. */
static void do_network(const job *of, const stage *stages, uint8_t *x, uint8_t *other, uint8_t *y) {
    do_step((step){.of = of, .kind = CONVOLVE, .stage = stages, .x = x, .y = other});
    do_step((step){.of = of, .kind = CONVOLVE, .stage = stages + 1, .x = other, .y = x});
    do_step((step){.of = of, .kind = CONVOLVE, .stage = stages + 2, .x = x, .y = y});
}

/* Bytes of one of the two rooms for pairs. */
static int64_t room_of_pairs(const networks *net, int h, int w) {
    int pairs = (3 * net->planes + 1) / 2 > 8 ? (3 * net->planes + 1) / 2 : 8;
    for (int i = 0; i < 2; i++) {
        int of_field = (net->field[i].branches * net->field[i].outputs + 1) / 2;
        int of_coupling = (net->coupling[i].branches * net->coupling[i].outputs + 1) / 2;
        pairs = of_field > pairs ? of_field : pairs;
        pairs = of_coupling > pairs ? of_coupling : pairs;
    }
    return 2 * (int64_t)h * pairs * stride_of(w);
}

/* Bytes of `room` in encdl_mask. */
EXPORT int64_t encdl_mask_room(const networks *net, int height, int width) {
    int h = (height + 1) / 2, w = (width + 1) / 2;
    return 2 * room_of_pairs(net, h, w) + 5 * (int64_t)h * w;
}

/* The mask (height, width) of a picture: `planes` are (count, height, width) in {0, 1}, and `clear` tells whether the
   picture is no ciphertext. Up to `threads` threads share the work if there is a `together`. */
EXPORT void encdl_mask(const networks *net, const uint8_t *planes, const uint8_t *picture, uint8_t *mask, int height,
                       int width, int clear, uint8_t *room, parallel *together, int threads) {
    int h = (height + 1) / 2, w = (width + 1) / 2;
    job of = {net, planes, picture, height, width, h, w, clear, together, threads};
    uint8_t *x = room, *other = x + room_of_pairs(net, h, w), *field = other + room_of_pairs(net, h, w);
    uint8_t *first = field + (ptrdiff_t)h * w, *others = first + (ptrdiff_t)h * w;
    do_step((step){.of = &of, .kind = SIGNS, .y = x});
    do_network(&of, net->field, x, other, field);
    do_step((step){.of = &of, .kind = FIRST_MASK, .x = field, .y = first});
    do_step((step){.of = &of, .kind = FEATURES, .x = first, .y = x});
    do_network(&of, net->coupling, x, other, others);
    do_step((step){.of = &of, .kind = WHOLE_MASK, .x = first, .second = others, .y = mask});
}

#else /* another processor or compiler: the float layers work */

EXPORT int encdl_agile_revision(void) { return 0; }

#endif
