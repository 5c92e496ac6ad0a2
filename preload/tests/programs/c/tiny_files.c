/* No file, and so no buffer, may have as much as the smallest one. */
#define LARGEST 8192
#include "small_files.c"
