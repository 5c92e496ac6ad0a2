#include "case.h"

/* Level-triggered: told as long as it is so. With EPOLL_CTL_MOD and DEL, the errors of epoll_ctl, and a copy. */
static struct epoll_event event;

static int look(int epoll, const char *what) {
    int found = epoll_wait(epoll, &event, 1, 0);
    note_epoll(what, found, &event);
    return found;
}

static int control(int epoll, int what, int fd, unsigned events) {
    struct epoll_event wanted = {events, {.u64 = 0x123456789abcdef0}};
    return epoll_ctl(epoll, what, fd, &wanted);
}

void server(int fd) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    char text[10];
    SHOW(control(epoll, EPOLL_CTL_MOD, fd, EPOLLIN));
    SHOW(control(epoll, EPOLL_CTL_DEL, fd, 0));
    SHOW(control(epoll, EPOLL_CTL_ADD, fd, EPOLLIN));
    SHOW(control(epoll, EPOLL_CTL_ADD, fd, EPOLLIN));
    look(epoll, "nothing there");
    SHOW(epoll_wait(epoll, &event, 1, 30));
    meet();
    SHOW(epoll_wait(epoll, &event, 1, 10000));
    SHOW(event.data.u64 == 0x123456789abcdef0);
    meet();
    wait_for_bytes(fd, 6);
    look(epoll, "six bytes there");
    look(epoll, "as before");
    SHOW(recv(fd, text, 4, 0));
    look(epoll, "two bytes left");
    SHOW(control(epoll, EPOLL_CTL_MOD, fd, EPOLLOUT));
    look(epoll, "room to write");
    SHOW(control(epoll, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT));
    look(epoll, "both");
    SHOW(control(epoll, EPOLL_CTL_MOD, fd, 0));
    look(epoll, "asked for nothing");
    SHOW(control(epoll, EPOLL_CTL_MOD, fd, EPOLLIN));
    SHOW(recv(fd, text, 4, 0));
    look(epoll, "all read");
    int copy = dup(fd);
    SHOW(control(epoll, EPOLL_CTL_ADD, copy, EPOLLOUT));
    look(epoll, "the copy");
    SHOW(control(epoll, EPOLL_CTL_DEL, copy, 0));
    look(epoll, "without the copy");
    meet();
    SHOW(epoll_wait(epoll, &event, 1, 10000));
    SHOW(control(epoll, EPOLL_CTL_DEL, fd, 0));
    look(epoll, "taken out");
    SHOW(epoll_wait(epoll, &event, 0, 0));
    SHOW(epoll_wait(fd, &event, 1, 0));
    SHOW(recv(fd, text, sizeof text, MSG_WAITALL));
}

void client(int fd) {
    meet();
    sleep_ms(20);
    SHOW(send(fd, "123", 3, 0));
    meet();
    SHOW(send(fd, "456", 3, 0));
    meet();
    SHOW(send(fd, "7", 1, 0));
    SHOW(shutdown(fd, SHUT_WR));
    char byte;
    EXPECT(recv(fd, &byte, 1, 0) <= 0);
}
