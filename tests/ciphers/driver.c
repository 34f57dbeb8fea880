/* Calls functions of a shared library as standard input says, and writes what they left in their memory.

   Words of 8 bytes. Of each call: its name, 32 bytes; a number that goes to the function as its only float; how many other
   arguments there are; and of each argument its size and content, or 0 and a number. All registers are given to all. */

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 14 };
typedef int64_t i64;
typedef i64 function(i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, float);

static i64 number(void) {
    i64 found;
    if (fread(&found, sizeof found, 1, stdin) != 1) exit(3);
    return found;
}

int main(int count, char **words) {
    void *library = count == 2 ? dlopen(words[1], RTLD_NOW) : NULL;
    char name[32];
    while (library && fread(name, sizeof name, 1, stdin)) {
        function *called = (function *)dlsym(library, name);
        float real = number() / 1024.0f;
        i64 a[MOST] = {0}, sizes[MOST] = {0}, given = number();
        if (!called || given > MOST) return 4;
        for (int i = 0; i < given; i++) {
            if ((sizes[i] = number())) {
                char *memory = malloc(sizes[i]);
                if (!memory || fread(memory, 1, sizes[i], stdin) != (size_t)sizes[i]) return 5;
                a[i] = (i64)(intptr_t)memory;
            } else
                a[i] = number();
        }
        called(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], real);
        for (int i = 0; i < given; i++)
            if (sizes[i]) fwrite((void *)(intptr_t)a[i], 1, sizes[i], stdout);
    }
    return library ? 0 : 2;
}
