/* The passes of `encdl.ciphers.postprocess.diffusion`: d[i] = p[i] + S[d[i-1] ^ k[i]] along every line, and p from d. */

#include "../../utils/compiled.h"

enum { REVISION = 1, LEVELS = 256, TOGETHER = 8 }; /* the revision as in `encdl.ciphers.postprocess.diffusion` */

typedef uint8_t byte;

EXPORT int encdl_diffusion_revision(void) { return REVISION; }

/* `lines` lines of `steps` bytes, one behind the other in memory, from their first byte on (`ahead` = 1) or from their
   last (-1). A step waits for the one before, so several lines take it together. */
static inline void along_lines(byte *d, const byte *box, const byte *key, int lines, int64_t steps, int ahead, int undo) {
    byte before[TOGETHER] = {0};
    for (int64_t step = 0, at = ahead < 0 ? steps - 1 : 0; step < steps; step++, at += ahead)
        for (int line = 0; line < lines; line++) {
            byte *pixel = d + line * steps + at, change = box[before[line] ^ key[line * steps + at]];
            byte old = *pixel;
            *pixel = undo ? old - change : old + change;
            before[line] = undo ? old : *pixel;
        }
}

/* One pass along the rows of memory. */
static inline void along_memory(byte *d, const byte *box, const byte *key, int64_t rows, int64_t columns, int ahead, int undo) {
    int64_t row = 0;
    for (; row + TOGETHER <= rows; row += TOGETHER)
        along_lines(d + row * columns, box, key + row * columns, TOGETHER, columns, ahead, undo);
    for (; row < rows; row++) along_lines(d + row * columns, box, key + row * columns, 1, columns, ahead, undo);
}

/* One pass from a row of memory to the next, `ahead` rows on: all lines take a step before any takes the next. */
static void across_memory(byte *d, const byte *box, const byte *key, int64_t rows, int64_t columns, int backwards, int undo) {
    int64_t ahead = backwards ? -columns : columns;
    for (int64_t step = 0; step < rows; step++) {
        int64_t row = (undo != backwards ? rows - 1 - step : step) * columns;
        int first = row == (backwards ? rows - 1 : 0) * columns;
        for (int64_t at = row; at < row + columns; at++) {
            byte change = box[(first ? 0 : d[at - ahead]) ^ key[at]];
            d[at] = undo ? d[at] - change : d[at] + change;
        }
    }
}

/* All passes over an image of rows x columns bytes, in its place.

   passes: a pass in two numbers: whether it runs along the rows (else from row to row), and whether backwards.
   boxes: (count, LEVELS); key: (count, rows, columns), both by pass. */
EXPORT void encdl_diffuse(byte *image, const byte *boxes, const byte *key, const int32_t *passes, int count, int64_t rows, int64_t columns, int undo) {
    for (int turn = 0; turn < count; turn++) {
        int at = undo ? count - 1 - turn : turn, rowwise = passes[2 * at], backwards = passes[2 * at + 1];
        const byte *box = boxes + at * LEVELS, *stream = key + at * rows * columns;
        if (!rowwise) across_memory(image, box, stream, rows, columns, backwards, undo);
        else if (undo) along_memory(image, box, stream, rows, columns, backwards ? -1 : 1, 1);
        else along_memory(image, box, stream, rows, columns, backwards ? -1 : 1, 0);
    }
}
