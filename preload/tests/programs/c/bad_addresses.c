#include <sys/mman.h>

/* The same with memory that is not there. */
#define NOWHERE mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
#include "bad_arguments.c"
