#include "case.h"

#include <sys/resource.h>

/* Files may have no more than 64 KiB, those in memory too; SIGXFSZ is the answer to more, and would be the end. */
static void limit_files(void) {
    struct rlimit file = {65536, 65536};
    EXPECT(setrlimit(RLIMIT_FSIZE, &file) == 0);
}

#define LIMIT limit_files
#include "no_memory.c"
