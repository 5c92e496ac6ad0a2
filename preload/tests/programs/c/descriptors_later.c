#include "case.h"

#include <sys/resource.h>

/* The descriptors are used up after a connection is warm; it stays usable, and what is freed can be used. */
void server(int fd) {
    struct rlimit limit = {100, 100};
    EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    while (dup(2) >= 0) {}
    for (int i = 0; i < 40; i++) pong(fd);
    recv_filled(fd, 1000000, 1);
    struct pollfd poll_fd = {fd, POLLIN, 0};
    SHOW(poll(&poll_fd, 1, 20));
    SHOW(close(99));
    int epoll = epoll_create1(0);
    SHOW(epoll);
    struct epoll_event event = {EPOLLIN, {.fd = fd}};
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    SHOW(epoll_wait(epoll, &event, 1, 20));
    meet();
    SHOW(epoll_wait(epoll, &event, 1, 10000));
    pong(fd);
}

void client(int fd) {
    for (int i = 0; i < 40; i++) ping(fd, "with none to spare");
    send_filled(fd, 1000000, 1);
    meet();
    ping(fd, "by epoll");
}
