#include "case.h"

#include <sys/resource.h>

/* Who waits uses no processor time, in whichever call; nor does who has only asked to be told. */
static long used_ms(void) {
    struct rusage usage;
    EXPECT(getrusage(RUSAGE_SELF, &usage) == 0);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

static void in_recv(int fd) {
    char byte;
    SHOW(recv(fd, &byte, 1, MSG_PEEK));
}

static void in_poll(int fd) {
    struct pollfd poll_fd = {fd, POLLIN, 0};
    SHOW(poll(&poll_fd, 1, 10000));
}

static void in_epoll(int fd) {
    struct epoll_event event = {EPOLLIN | EPOLLET, {.fd = fd}};
    int epoll = epoll_create1(0);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    SHOW(epoll_wait(epoll, &event, 1, 10000));
    EXPECT(close(epoll) == 0);
}

static void elsewhere(int fd) { sleep_ms(1000); }

void server(int fd) {
    void (*const waits[])(int) = {in_recv, in_poll, in_epoll, elsewhere};
    for (int i = 0; i < 4; i++) {
        meet();
        long before = used_ms();
        waits[i](fd);
        long used = used_ms() - before;
        /* A waiter that spins takes all of the second. */
        if (used > 50) die("%ld ms of processor time in 1000", used);
        pong(fd);
    }
}

void client(int fd) {
    for (int i = 0; i < 4; i++) {
        meet();
        long before = used_ms();
        sleep_ms(1000);
        long used = used_ms() - before;
        if (used > 50) die("%ld ms of processor time in 1000", used);
        ping(fd, "awake");
    }
}
