#include "case.h"

#include <sys/resource.h>

/* There is no address space for large buffers. Connections carry on with small ones, or as TCP if need be. */
#ifndef LIMIT
static void limit(void) {
    unsigned long pages;
    FILE *statm = fopen("/proc/self/statm", "re");
    EXPECT(statm && fscanf(statm, "%lu", &pages) == 1);
    fclose(statm);
    struct rlimit space = {pages * 4096 + 1500000, pages * 4096 + 1500000};
    EXPECT(setrlimit(RLIMIT_AS, &space) == 0);
}
#define LIMIT limit
#endif

enum { CONNECTIONS = 3 };

void serve(int listener) {
    LIMIT();
    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = accept_from(listener);
        for (int j = 0; j < 40; j++) pong(fd);
        recv_filled(fd, 1000000, 1);
        send_filled(fd, 1000000, 2);
        SHOW(close(fd));
    }
}

void connect_and_run(uint16_t port) {
    LIMIT();
    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = connect_to(port);
        for (int j = 0; j < 40; j++) ping(fd, "limited");
        send_filled(fd, 1000000, 1);
        recv_filled(fd, 1000000, 2);
        char byte;
        SHOW(recv(fd, &byte, 1, 0));
        SHOW(close(fd));
    }
}
