#include "case.h"

#include <sys/resource.h>

/* Files may have no more than 64 KiB, those in memory too; SIGXFSZ is the answer to more, and would be the end. */
#ifndef LARGEST
#define LARGEST 65536
#endif

static void limit_files(void) {
    struct rlimit file = {LARGEST, LARGEST};
    EXPECT(setrlimit(RLIMIT_FSIZE, &file) == 0);
}

#define LIMIT limit_files
#include "little_memory.c"
