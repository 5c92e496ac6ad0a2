#include "case.h"

/* Edge-triggered: told once for each arrival. */
static struct epoll_event event;

static void look(int epoll, const char *what) {
    int found = epoll_wait(epoll, &event, 1, 0);
    note_epoll(what, found, &event);
}

/* Nothing new. While a connection is being promoted, what was told may be told once more, but not again and again. */
static void nothing_new(int epoll, const char *what) {
    for (int told = 0; !is_warm() && told < 2 && epoll_wait(epoll, &event, 1, 0) != 0; told++) continue;
    look(epoll, what);
}

static void next(int epoll, const char *what) {
    int found = epoll_wait(epoll, &event, 1, 10000);
    note_epoll(what, found, &event);
}

void server(int fd) {
    int epoll = epoll_create1(0);
    char text[10];
    struct epoll_event wanted = {EPOLLIN | EPOLLET, {.fd = fd}};
    set_nonblocking(fd, true);
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted));
    look(epoll, "nothing there");
    meet();
    next(epoll, "three bytes");
    nothing_new(epoll, "told already");
    SHOW(recv(fd, text, 1, 0));
    nothing_new(epoll, "two left, told already");
    meet();
    next(epoll, "more came");
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(recv(fd, text, sizeof text, 0));
    nothing_new(epoll, "all read");
    meet();
    next(epoll, "more came");
    wanted.events = EPOLLIN | EPOLLOUT | EPOLLET;
    SHOW(epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &wanted));
    next(epoll, "asked anew");
    /* Room to write may be told again at any time; what came may not. */
    wanted.events = EPOLLIN | EPOLLET;
    SHOW(epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &wanted));
    next(epoll, "asked anew");
    nothing_new(epoll, "told already");
    SHOW(recv(fd, text, sizeof text, 0));
    meet();
    next(epoll, "the end came");
    SHOW(recv(fd, text, sizeof text, 0));
    nothing_new(epoll, "told already");
}

void client(int fd) {
    meet();
    SHOW(send(fd, "123", 3, 0));
    meet();
    SHOW(send(fd, "456", 3, 0));
    meet();
    SHOW(send(fd, "7", 1, 0));
    meet();
    SHOW(shutdown(fd, SHUT_WR));
    char byte;
    EXPECT(recv(fd, &byte, 1, 0) <= 0);
}
