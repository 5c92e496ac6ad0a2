#include "case.h"

/* EPOLLEXCLUSIVE: two instances watch one connection, and somebody is woken; what may not be combined with it. */
static int add(int epoll, int fd, unsigned events) {
    struct epoll_event wanted = {events, {.fd = fd}};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted);
}

static int modify(int epoll, int fd, unsigned events) {
    struct epoll_event wanted = {events, {.fd = fd}};
    return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &wanted);
}

void server(int fd) {
    int one = epoll_create1(0), other = epoll_create1(0);
    struct epoll_event event;
    SHOW(add(one, fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT));
    SHOW(add(one, fd, EPOLLIN | EPOLLEXCLUSIVE));
    SHOW(add(other, fd, EPOLLIN | EPOLLEXCLUSIVE));
    SHOW(modify(one, fd, EPOLLIN));
    SHOW(modify(one, fd, EPOLLIN | EPOLLEXCLUSIVE));
    SHOW(epoll_wait(one, &event, 1, 0));
    meet();
    wait_readable(fd);
    int found = epoll_wait(one, &event, 1, 0) + epoll_wait(other, &event, 1, 0);
    SHOW(found > 0);
    note_epoll("told", 1, &event);
    pong(fd);
    SHOW(epoll_wait(one, &event, 1, 0) + epoll_wait(other, &event, 1, 0));
    meet();
}

void client(int fd) {
    meet();
    ping(fd, "wake up");
    /* Its end would be an event too. */
    meet();
}
