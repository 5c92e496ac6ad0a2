#include "case.h"

#include <sys/resource.h>

/* 300 connections between two processes, used in turns, then closed in another order. */
enum { COUNT = 300 };

static int fds[COUNT];

static void prepare(void) {
    struct rlimit limit;
    EXPECT(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

void serve(int listener) {
    prepare();
    for (int i = 0; i < COUNT; i++) fds[i] = accept_from(listener);
    warm_up(fds[0], true);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < COUNT; i++) {
            int number;
            recv_all(fds[i], &number, sizeof number);
            EXPECT(number == i * 1000 + round);
            send_all(fds[i], &number, sizeof number);
        }
    }
    note("all answered");
    for (int i = 0; i < COUNT; i++) {
        char byte;
        EXPECT(recv(fds[i], &byte, 1, 0) == 0 && close(fds[i]) == 0);
    }
    note("all closed");
}

void connect_and_run(uint16_t port) {
    prepare();
    for (int i = 0; i < COUNT; i++) fds[i] = connect_to(port);
    warm_up(fds[0], false);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < COUNT; i++) {
            int number = i * 1000 + round;
            send_all(fds[i], &number, sizeof number);
        }
        for (int i = 0; i < COUNT; i++) {
            int number;
            recv_all(fds[i], &number, sizeof number);
            EXPECT(number == i * 1000 + round);
        }
    }
    note("all answers came");
    for (int i = COUNT; i-- > 0;) EXPECT(close(fds[i]) == 0);
    note("all closed");
}
