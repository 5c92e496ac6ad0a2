#include "case.h"

/* Signal-driven input (O_ASYNC): a signal for what comes. */
static volatile sig_atomic_t ready;

static void count(int signal) { ready++; }

void server(int fd) {
    EXPECT(signal(SIGIO, count) != SIG_ERR);
    SHOW(fcntl(fd, F_SETOWN, getpid()));
    SHOW(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC));
    for (int i = 0; i < 30; i++) {
        int before = ready;
        meet();
        for (int waited = 0; ready == before && waited < 10000; waited++) sleep_ms(1);
        EXPECT(ready > before);
        pong(fd);
    }
}

void client(int fd) {
    for (int i = 0; i < 30; i++) {
        meet();
        sleep_ms(2);
        ping(fd, "signal");
    }
}
