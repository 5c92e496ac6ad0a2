#include "case.h"

static const size_t sizes[] = {1, 2, 100, 1000, 4096, 65536, 100001, 3000000, 7, 1 << 20};
#define COUNT (sizeof sizes / sizeof *sizes)

void server(int fd) {
    for (size_t i = 0; i < COUNT; i++) {
        recv_filled(fd, sizes[i], i * 1000003);
        send_filled(fd, sizes[i], i * 77);
    }
    SHOW(close(fd));
}

void client(int fd) {
    for (size_t i = 0; i < COUNT; i++) {
        send_filled(fd, sizes[i], i * 1000003);
        recv_filled(fd, sizes[i], i * 77);
    }
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
    SHOW(close(fd));
}
