/* The mask network for processors with AVX-512, VBMI and VNNI: what mask_network.c does with AVX2, 64 places at a time.

   Of the two bytes of a place the six low bits each index a table of 64 (VPERMB), and the two high bits of both a third
   one, whose other two index bits say that a byte lies outside. The second stage and the last convolution multiply the
   four channels of a place at once (VPDPBUSD): an activation is one byte of the place's four. */

enum { WIDE = 64, INDICES = 3, NOWHERE = 48, SPREAD = 8, BEHIND = SPREAD + 1, BORDER = 64, BORDER_4 = BORDER / BRANCHES, MOST = 4 };

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vbmi,avx512vnni")))
#define INLINE_512 static inline __attribute__((always_inline)) AVX512

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vnni");
}

INLINE_512 __mmask64 first_of_64(ptrdiff_t count) { return count >= 64 ? ~0ull : count <= 0 ? 0 : (1ull << count) - 1; }

/* Places of a row of an index, and of activations: with a border before each row, which is the one behind the row above. */
static ptrdiff_t wide_stride(ptrdiff_t w) { return (w + WIDE - 1) / WIDE * WIDE + BORDER; }
static ptrdiff_t wide_stride_4(ptrdiff_t w) { return (w + WIDE - 1) / WIDE * WIDE + BORDER_4; }

/* Bytes of the indices, with SPREAD rows above and below, and of the activations: those of the second stage take the places
   of the first one's, BEHIND rows further up, which are not read any more. */
static ptrdiff_t room_of_indices(ptrdiff_t h, ptrdiff_t w) { return (h + 2 * SPREAD) * INDICES * wide_stride(w) + BORDER; }
static ptrdiff_t room_of_stages(ptrdiff_t h, ptrdiff_t w) {
    return ((h + BEHIND + 1 + SPREAD) * wide_stride_4(w) + BORDER_4) * BRANCHES;
}

/* 64 bytes of a phase of an image from place `column` of `row` on, NOWHERE for what is outside, which `inside` tells. */
INLINE_512 __m512i bytes_of_phase(const uint8_t *image, ptrdiff_t height, ptrdiff_t width, int phase, ptrdiff_t row, ptrdiff_t column,
                                  __m512i even, __mmask64 *inside) {
    ptrdiff_t line = 2 * row + phase / 2, right = phase % 2, left = width - 2 * column;
    *inside = line < height ? first_of_64((left - right + 1) / 2) : 0;
    if (line >= height) return _mm512_set1_epi8(NOWHERE);
    const uint8_t *from = image + line * width + 2 * column;
    __m512i one = _mm512_maskz_loadu_epi8(first_of_64(left), from), two = _mm512_maskz_loadu_epi8(first_of_64(left - 64), from + 64);
    __m512i found = _mm512_permutex2var_epi8(one, _mm512_or_si512(even, _mm512_set1_epi8(right)), two);
    return _mm512_mask_mov_epi8(_mm512_set1_epi8(NOWHERE), *inside, found);
}

/* The three indices of every place of the phases `read`: `x` is place 0 of the first row. */
static AVX512 void wide_indices(const uint8_t *image, ptrdiff_t height, ptrdiff_t width, const int read[2], uint8_t *x, ptrdiff_t h,
                                ptrdiff_t w) {
    ptrdiff_t stride = wide_stride(w);
    memset(x - SPREAD * INDICES * stride - BORDER, NOWHERE, SPREAD * INDICES * stride + BORDER);
    memset(x + h * INDICES * stride - BORDER, NOWHERE, SPREAD * INDICES * stride + BORDER);
    __m512i even = _mm512_setzero_si512(), nowhere = _mm512_set1_epi8(NOWHERE);
    for (int i = 15; i >= 0; i--) /* 0, 2, ... 126 */
        even = _mm512_mask_set1_epi32(even, 1 << i, 0x06040200 + i * 0x08080808);
    for (ptrdiff_t row = 0; row < h; row++, x += INDICES * stride) {
        for (int index = 0; index < INDICES; index++) _mm512_storeu_si512(x + index * stride - BORDER, nowhere);
        for (ptrdiff_t column = 0; column < w; column += WIDE) {
            __mmask64 inside[2];
            __m512i one = bytes_of_phase(image, height, width, read[0], row, column, even, inside);
            __m512i two = bytes_of_phase(image, height, width, read[1], row, column, even, inside + 1);
            __m512i high = _mm512_and_si512(_mm512_srli_epi16(one, 6), _mm512_set1_epi8(3));
            high = _mm512_or_si512(high, _mm512_and_si512(_mm512_srli_epi16(two, 4), _mm512_set1_epi8(12)));
            high = _mm512_mask_add_epi8(high, ~inside[0], _mm512_and_si512(high, _mm512_set1_epi8(12)), _mm512_set1_epi8(16));
            high = _mm512_mask_add_epi8(high, ~inside[1], _mm512_and_si512(high, _mm512_set1_epi8(19)), _mm512_set1_epi8(32));
            _mm512_storeu_si512(x + column, one);
            _mm512_storeu_si512(x + stride + column, high);
            _mm512_storeu_si512(x + 2 * stride + column, two);
        }
    }
}

/* Zeros around the places of a stage, and `rows` rows of them above and below: `y` is place 0 of the first row. */
static void wide_surround(uint8_t *y, ptrdiff_t h, ptrdiff_t w, ptrdiff_t rows) {
    ptrdiff_t row = BRANCHES * wide_stride_4(w), behind = row - BRANCHES * w;
    memset(y - rows * row - BORDER, ZERO, rows * row + BORDER);
    for (ptrdiff_t line = 0; line < h; line++) memset(y + line * row + BRANCHES * w, ZERO, behind);
    memset(y + h * row - BORDER, ZERO, rows * row + BORDER);
}

/* One branch of the first stage at `blocks` times 64 places, its numbers from 0 to 127; sums gather as with AVX2. */
INLINE_512 void wide_first_branch(const half *net, int branch, const uint8_t *x, ptrdiff_t stride, int blocks, __m512i in_order,
                                  __m512i *found) {
    ptrdiff_t dilation = DILATIONS[branch];
    __m512i both[MOST], odd[MOST], less = _mm512_set1_epi16(net->first_bias[branch] - TAPS * 128 + ZERO);
#pragma GCC unroll 4
    for (int i = 0; i < blocks; i++) both[i] = odd[i] = _mm512_setzero_si512();
#pragma GCC unroll 1
    for (int down = 0; down < 3; down++) {
        const uint8_t *p[INDICES];
        const int8_t(*tables)[INDICES][WIDE] = net->wide_tables[branch] + 3 * down;
#pragma GCC unroll 3
        for (int index = 0; index < INDICES; index++) p[index] = x + ((down - 1) * dilation * INDICES + index) * stride;
#pragma GCC unroll 3
        for (int right = 0; right < 3; right++) {
            __m512i sum[MOST];
#pragma GCC unroll 3
            for (int index = 0; index < INDICES; index++) {
                __m512i table = _mm512_loadu_si512(tables[right][index]);
#pragma GCC unroll 4
                for (int i = 0; i < blocks; i++) {
                    __m512i part = _mm512_permutexvar_epi8(_mm512_loadu_si512(p[index] + (right - 1) * dilation + i * WIDE), table);
                    sum[i] = index ? _mm512_add_epi8(sum[i], part) : part;
                }
            }
#pragma GCC unroll 4
            for (int i = 0; i < blocks; i++) {
                both[i] = _mm512_add_epi16(both[i], sum[i]);
                odd[i] = _mm512_add_epi16(odd[i], _mm512_srli_epi16(sum[i], 8));
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < blocks; i++) {
        __m512i even = _mm512_sub_epi16(_mm512_add_epi16(both[i], less), _mm512_slli_epi16(odd[i], 8));
        __m512i bytes = _mm512_packus_epi16(even, _mm512_add_epi16(odd[i], less));
        found[i] = _mm512_permutexvar_epi8(in_order, _mm512_min_epu8(bytes, _mm512_set1_epi8(127)));
    }
}

INLINE_512 void wide_first_places(const half *net, const uint8_t *x, uint8_t *y, ptrdiff_t stride, int blocks, __m512i in_order) {
    __m512i c[BRANCHES][MOST];
#pragma GCC unroll 4
    for (int branch = 0; branch < BRANCHES; branch++) wide_first_branch(net, branch, x, stride, blocks, in_order, c[branch]);
#pragma GCC unroll 4
    for (int i = 0; i < blocks; i++, y += BRANCHES * WIDE) {
        __m512i low = _mm512_unpacklo_epi8(c[0][i], c[1][i]), low_2 = _mm512_unpacklo_epi8(c[2][i], c[3][i]);
        __m512i high = _mm512_unpackhi_epi8(c[0][i], c[1][i]), high_2 = _mm512_unpackhi_epi8(c[2][i], c[3][i]);
        _mm512_storeu_si512(y, _mm512_unpacklo_epi16(low, low_2));
        _mm512_storeu_si512(y + 64, _mm512_unpackhi_epi16(low, low_2));
        _mm512_storeu_si512(y + 128, _mm512_unpacklo_epi16(high, high_2));
        _mm512_storeu_si512(y + 192, _mm512_unpackhi_epi16(high, high_2));
    }
}

static AVX512 void wide_first(const half *net, const uint8_t *x, uint8_t *y, ptrdiff_t h, ptrdiff_t w) {
    ptrdiff_t stride = wide_stride(w), stride_4 = wide_stride_4(w);
    uint8_t order[WIDE]; /* so that four unpacked channels come out in the order of places */
    for (int place = 0; place < WIDE; place++)
        order[place / 4 % 4 * 16 + place / 16 * 4 + place % 4] = place / 16 * 16 + place % 16 / 2 + place % 2 * 8;
    __m512i in_order = _mm512_loadu_si512(order);
    for (ptrdiff_t row = 0; row < h; row++) {
        const uint8_t *from = x + row * INDICES * stride;
        uint8_t *to = y + row * BRANCHES * stride_4;
        ptrdiff_t column = 0;
        for (; column + 3 * WIDE < w; column += 4 * WIDE) wide_first_places(net, from + column, to + BRANCHES * column, stride, 4, in_order);
        for (; column < w; column += WIDE) wide_first_places(net, from + column, to + BRANCHES * column, stride, 1, in_order);
    }
    wide_surround(y, h, w, SPREAD);
}

/* 16 of 32 places from place `first` on, of those that the code asks for: an instruction holds the number. */
INLINE_512 __m512i places_from(int first, __m512i low, __m512i high) {
    switch (first) {
    case 1: return _mm512_alignr_epi32(high, low, 1);
    case 2: return _mm512_alignr_epi32(high, low, 2);
    case 4: return _mm512_alignr_epi32(high, low, 4);
    case 8: return _mm512_alignr_epi32(high, low, 8);
    case 12: return _mm512_alignr_epi32(high, low, 12);
    case 14: return _mm512_alignr_epi32(high, low, 14);
    default: return _mm512_alignr_epi32(high, low, 15);
    }
}

/* Sums of a convolution at 64 places, `p` the first of them, for `outputs` outputs of `weights` (outputs, taps, channels).
   Every place is loaded once, and its neighbours come from registers: loads across lines of the cache take the time. */
INLINE_512 void wide_sums(const int8_t weights[][TAPS][PAIRS][2], const int16_t *biases, int more, int outputs, const int dilation,
                          const uint8_t *p, ptrdiff_t stride_4, __m512i (*sums)[4]) {
    for (int output = 0; output < outputs; output++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sums[output][i] = _mm512_set1_epi32(biases[output] + more);
#pragma GCC unroll 1
    for (int down = 0; down < 3; down++) {
        const uint8_t *from = p + BRANCHES * (down - 1) * dilation * stride_4;
        __m512i at[6], places[3][4];
#pragma GCC unroll 6
        for (int i = 0; i < 6; i++) at[i] = _mm512_loadu_si512(from + 64 * i - 64);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            places[0][i] = places_from(16 - dilation, at[i], at[i + 1]);
            places[1][i] = at[i + 1];
            places[2][i] = places_from(dilation, at[i + 1], at[i + 2]);
        }
#pragma GCC unroll 3
        for (int right = 0; right < 3; right++)
#pragma GCC unroll 2
            for (int output = 0; output < outputs; output++) {
                int32_t four;
                memcpy(&four, weights[output][3 * down + right], 4);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++)
                    sums[output][i] = _mm512_dpbusd_epi32(sums[output][i], places[right][i], _mm512_set1_epi32(four));
            }
    }
}

static AVX512 void wide_second(const half *net, const uint8_t *x, uint8_t *y, ptrdiff_t h, ptrdiff_t w) {
    ptrdiff_t stride_4 = wide_stride_4(w);
    __m512i by_place = _mm512_set4_epi32(0x0F0B0703, 0x0E0A0602, 0x0D090501, 0x0C080400);
    for (ptrdiff_t row = 0; row < h; row++)
        for (ptrdiff_t column = 0; column < w; column += WIDE) {
            ptrdiff_t start = BRANCHES * (row * stride_4 + column);
            __m512i sums[BRANCHES][4];
#pragma GCC unroll 4
            for (int branch = 0; branch < BRANCHES; branch++) /* 128 after a shift by 3: then 0..255 are 0..127 twice */
                wide_sums(net->second + branch, net->second_bias + branch, 8 * 128, 1, DILATIONS[branch], x + start, stride_4,
                          sums + branch);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                __m512i low = _mm512_srai_epi16(_mm512_packs_epi32(sums[0][i], sums[1][i]), 3);
                __m512i high = _mm512_srai_epi16(_mm512_packs_epi32(sums[2][i], sums[3][i]), 3);
                __m512i twice = _mm512_shuffle_epi8(_mm512_packus_epi16(low, high), by_place);
                _mm512_storeu_si512(y + start + 64 * i, _mm512_and_si512(_mm512_srli_epi16(twice, 1), _mm512_set1_epi8(127)));
            }
        }
    wide_surround(y, h, w, 1);
}

static AVX512 void wide_last(const half *net, const uint8_t *x, const uint8_t *keys, uint8_t *mask, const int phases[OUTPUTS],
                             ptrdiff_t height, ptrdiff_t width) {
    ptrdiff_t h = (height + 1) / 2, w = (width + 1) / 2, stride_4 = wide_stride_4(w);
    __m512i low_bytes = _mm512_setzero_si512();
    for (int i = 15; i >= 0; i--) /* each twice: 0, 0, 4, 4, ... */
        low_bytes = _mm512_mask_set1_epi32(low_bytes, 1 << i, 0x04040000 + i * 0x08080808);
    for (ptrdiff_t row = 0; row < h; row++)
        for (ptrdiff_t column = 0; column < w; column += WIDE) {
            __m512i sums[OUTPUTS][4];
            wide_sums(net->out, net->out_bias, 0, OUTPUTS, 1, x + BRANCHES * (row * stride_4 + column), stride_4, sums);
#pragma GCC unroll 2
            for (int output = 0; output < OUTPUTS; output++) {
                ptrdiff_t line = 2 * row + phases[output] / 2, start = line * width + 2 * column, count = width - 2 * column;
                __mmask64 parity = phases[output] % 2 ? 0xAAAAAAAAAAAAAAAAull : 0x5555555555555555ull;
                if (line >= height) continue;
#pragma GCC unroll 2
                for (int i = 0; i < 2; i++) {
                    __mmask64 inside = first_of_64(count - 64 * i);
                    __m512i bytes = _mm512_maskz_permutex2var_epi8(parity, sums[output][2 * i], low_bytes, sums[output][2 * i + 1]);
                    __m512i key = _mm512_maskz_loadu_epi8(inside, keys + start + 64 * i);
                    _mm512_mask_storeu_epi8(mask + start + 64 * i, inside, _mm512_add_epi8(bytes, key));
                }
            }
        }
}

static void wide_round(const half *net, const uint8_t *from, const int read[2], const uint8_t *keys, uint8_t *mask, const int written[2],
                       ptrdiff_t height, ptrdiff_t width, uint8_t *room) {
    ptrdiff_t h = (height + 1) / 2, w = (width + 1) / 2, row = BRANCHES * wide_stride_4(w);
    room += -(uintptr_t)room % BORDER;
    uint8_t *indices = room + SPREAD * INDICES * wide_stride(w) + BORDER;
    uint8_t *second = room + room_of_indices(h, w) + row + BORDER, *first = second + BEHIND * row;
    wide_indices(from, height, width, read, indices, h, w);
    wide_first(net, indices, first, h, w);
    wide_second(net, first, second, h, w);
    wide_last(net, second, keys, mask, written, height, width);
}
