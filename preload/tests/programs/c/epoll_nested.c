#include "case.h"

/* An epoll instance within another, and within poll and select. */
void server(int fd) {
    int inner = epoll_create1(0), outer = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {.fd = fd}};
    EXPECT(epoll_ctl(inner, EPOLL_CTL_ADD, fd, &event) == 0);
    event.data.fd = inner;
    EXPECT(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event) == 0);
    struct pollfd poll_fd = {outer, POLLIN, 0};
    SHOW(epoll_wait(outer, &event, 1, 0));
    SHOW(poll(&poll_fd, 1, 0));
    meet();
    int found = epoll_wait(outer, &event, 1, 10000);
    note_epoll("outer", found, &event);
    found = poll(&poll_fd, 1, 10000);
    note_poll("poll", found, poll_fd.revents);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(inner, &set);
    SHOW(select(inner + 1, &set, NULL, NULL, NULL));
    found = epoll_wait(inner, &event, 1, 0);
    note_epoll("inner", found, &event);
    pong(fd);
    SHOW(epoll_wait(outer, &event, 1, 0));
    SHOW(epoll_wait(inner, &event, 1, 0));
    SHOW(poll(&poll_fd, 1, 0));
    meet();
    poll_fd.fd = inner;
    found = poll(&poll_fd, 1, 10000);
    note_poll("poll", found, poll_fd.revents);
    pong(fd);
}

void client(int fd) {
    meet();
    sleep_ms(20);
    ping(fd, "one");
    meet();
    sleep_ms(20);
    ping(fd, "two");
}
