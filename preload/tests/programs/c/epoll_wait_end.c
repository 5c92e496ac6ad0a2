#include "case.h"

/* A thread sleeps in epoll_wait while the peer shuts down, resets, or this process closes: who is woken, and by what. */
static struct epoll_event event;

static void watch(int epoll, int fd, unsigned events) {
    struct epoll_event wanted = {events, {.fd = fd}};
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted) == 0);
}

static void next(int epoll, const char *what) {
    int found = epoll_wait(epoll, &event, 1, 10000);
    note_epoll(what, found, &event);
}

static void serve_one(int listener, unsigned events, const char *what) {
    int fd = accept_from(listener);
    warm_up(fd, true);
    int epoll = epoll_create1(0);
    watch(epoll, fd, events);
    meet();
    next(epoll, what);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
    SHOW(close(fd));
    SHOW(epoll_wait(epoll, &event, 1, 20));
    EXPECT(close(epoll) == 0);
}

void serve(int listener) {
    serve_one(listener, EPOLLIN, "end, asked for IN");
    serve_one(listener, EPOLLRDHUP, "end, asked for RDHUP");
    serve_one(listener, EPOLLIN | EPOLLRDHUP | EPOLLET, "end, edge");
    serve_one(listener, 0, "reset, asked for nothing");
    serve_one(listener, EPOLLIN | EPOLLRDHUP | EPOLLET, "reset, edge");
}

void connect_and_run(uint16_t port) {
    for (int i = 0; i < 5; i++) {
        int fd = connect_to(port);
        warm_up(fd, false);
        meet();
        sleep_ms(20);
        if (i < 3) {
            SHOW(shutdown(fd, SHUT_WR));
            char byte;
            SHOW(recv(fd, &byte, 1, 0));
        } else {
            struct linger linger = {1, 0};
            EXPECT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
        }
        SHOW(close(fd));
    }
}
