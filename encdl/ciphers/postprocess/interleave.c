/* The order of `encdl.ciphers.postprocess.interleave`: pixels by (y + 2 x) mod 4, so that a row's even and odd pixels go two
   ways, and the whole rotated. A row is read once and its halves are written one behind the other. */

#include "../../utils/compiled.h"

enum { REVISION = 1, PHASES = 4 }; /* the revision as in `encdl.ciphers.compiled_ciphers` */

typedef uint8_t byte;

EXPORT int encdl_interleave_revision(void) { return REVISION; }

static inline void split(const byte *restrict row, byte *restrict even, byte *restrict odd, int64_t pairs) {
    for (int64_t i = 0; i < pairs; i++) {
        even[i] = row[2 * i];
        odd[i] = row[2 * i + 1];
    }
}

static inline void join(byte *restrict row, const byte *restrict even, const byte *restrict odd, int64_t pairs) {
    for (int64_t i = 0; i < pairs; i++) {
        row[2 * i] = even[i];
        row[2 * i + 1] = odd[i];
    }
}

/* One row between the image and two places of the file, of `size` bytes, behind whose end its beginning follows. */
static inline void move_row(byte *row, byte *file, int64_t size, int64_t even, int64_t odd, int64_t width, int undo) {
    int64_t pairs = width / 2;
    if (even + (width + 1) / 2 <= size && odd + pairs <= size) {
        if (undo) join(row, file + even, file + odd, pairs);
        else split(row, file + even, file + odd, pairs);
        if (width % 2 && undo) row[width - 1] = file[even + pairs];
        else if (width % 2) file[even + pairs] = row[width - 1];
        return;
    }
    for (int64_t x = 0; x < width; x++) { /* one row of an image or two */
        int64_t at = (x % 2 ? odd : even) + x / 2;
        if (at >= size) at -= size;
        if (undo) row[x] = file[at];
        else file[at] = row[x];
    }
}

/* An image; the file begins with byte `start` of the order. */
static void move_image(byte *image, byte *file, int64_t start, int64_t channels, int64_t height, int64_t width, int undo) {
    int64_t size = channels * height * width, even = (width + 1) / 2, odd = width / 2;
    int64_t next[PHASES]; /* where each phase goes on in the file */
    for (int64_t phase = 0, at = size - start; phase < PHASES; phase++) {
        int64_t evens = (height - phase + 3) / PHASES, odds = (height - (phase + 2) % PHASES + 3) / PHASES; /* its rows */
        next[phase] = at % size;
        at += channels * (evens * even + odds * odd);
    }
    for (int64_t y = 0; y < height; y++)
        for (int64_t channel = 0; channel < channels; channel++) {
            int64_t *one = next + y % PHASES, *other = next + (y + 2) % PHASES;
            move_row(image + (channel * height + y) * width, file, size, *one, *other, width, undo);
            if ((*one += even) >= size) *one -= size;
            if ((*other += odd) >= size) *other -= size;
        }
}

/* `count` images (count, channels, height, width) into files of the same form, or with `undo` the files into images. */
EXPORT void encdl_interleave(byte *images, byte *files, const int64_t *starts, int64_t count, int64_t channels, int64_t height,
                             int64_t width, int undo) {
    int64_t size = channels * height * width;
    for (int64_t at = 0; at < count; at++) move_image(images + at * size, files + at * size, starts[at], channels, height, width, undo);
}
