#include "case.h"

#include <sys/resource.h>

/* Files may have no more than 64 KiB, those in memory included: SIGXFSZ would be the answer to more. And there is
 * hardly any address space left. Connections carry on, as TCP if need be. */
static void limit_memory(void) {
    struct rlimit file = {65536, 65536}, space;
    unsigned long pages;
    FILE *statm = fopen("/proc/self/statm", "re");
    EXPECT(statm && fscanf(statm, "%lu", &pages) == 1);
    fclose(statm);
    space.rlim_cur = space.rlim_max = pages * 4096 + 300000;
    EXPECT(setrlimit(RLIMIT_FSIZE, &file) == 0 && setrlimit(RLIMIT_AS, &space) == 0);
}

void serve(int listener) {
    limit_memory();
    for (int i = 0; i < 3; i++) {
        int fd = accept_from(listener);
        for (int j = 0; j < 40; j++) pong(fd);
        recv_filled(fd, 1000000, 1);
        send_filled(fd, 1000000, 2);
        SHOW(close(fd));
    }
}

void connect_and_run(uint16_t port) {
    limit_memory();
    for (int i = 0; i < 3; i++) {
        int fd = connect_to(port);
        for (int j = 0; j < 40; j++) ping(fd, "with no memory");
        send_filled(fd, 1000000, 1);
        recv_filled(fd, 1000000, 2);
        char byte;
        SHOW(recv(fd, &byte, 1, 0));
        SHOW(close(fd));
    }
}
