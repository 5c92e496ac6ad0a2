#include "case.h"

static struct epoll_event event;

static void look(int epoll, int timeout, const char *what) {
    int found = epoll_wait(epoll, &event, 1, timeout);
    note_epoll(what, found, &event);
}

void server(int fd) {
    int epoll = epoll_create1(0);
    char text[10];
    struct epoll_event wanted = {EPOLLIN | EPOLLONESHOT, {.fd = fd}};
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted));
    look(epoll, 0, "nothing there");
    meet();
    look(epoll, 10000, "three bytes");
    look(epoll, 0, "disarmed");
    meet();
    wait_for_bytes(fd, 6);
    look(epoll, 0, "more came, disarmed");
    SHOW(epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &wanted));
    look(epoll, 10000, "armed anew");
    look(epoll, 0, "disarmed");
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &wanted));
    look(epoll, 20, "nothing there");
    meet();
    look(epoll, 10000, "the end");
    look(epoll, 0, "disarmed");
}

void client(int fd) {
    meet();
    SHOW(send(fd, "123", 3, 0));
    meet();
    SHOW(send(fd, "456", 3, 0));
    meet();
    SHOW(shutdown(fd, SHUT_WR));
    char byte;
    EXPECT(recv(fd, &byte, 1, 0) <= 0);
}
