#include "case.h"

/* What epoll and poll say when the peer has shut down, when we have, when both have, and after a reset. */
static void look(int fd, const char *what) {
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI, {.fd = fd}};
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    note("%s:", what);
    int found = epoll_wait(epoll, &event, 1, 0);
    note_epoll("  epoll", found, &event);
    EXPECT(close(epoll) == 0);
    struct pollfd poll_fd = {fd, POLLIN | POLLOUT | POLLRDHUP | POLLPRI, 0};
    found = poll(&poll_fd, 1, 0);
    note_poll("  poll", found, poll_fd.revents);
    poll_fd.events = 0;
    found = poll(&poll_fd, 1, 0);
    note_poll("  poll for nothing", found, poll_fd.revents);
    poll_fd.events = POLLRDHUP;
    found = poll(&poll_fd, 1, 0);
    note_poll("  poll for RDHUP", found, poll_fd.revents);
}

static void wait_for(int fd, short events) {
    struct pollfd poll_fd = {fd, events, 0};
    EXPECT(poll(&poll_fd, 1, 10000) == 1);
}

void server(int fd) {
    char byte;
    look(fd, "nothing there");
    meet();
    wait_readable(fd);
    look(fd, "data there");
    meet();
    wait_for(fd, POLLRDHUP);
    look(fd, "data, and the peer has shut down");
    SHOW(recv(fd, &byte, 1, 0));
    look(fd, "the peer has shut down");
    SHOW(recv(fd, &byte, 1, 0));
    look(fd, "the end is read");
    meet();
    SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
    SHOW(shutdown(fd, SHUT_WR));
    look(fd, "both have shut down");
    SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
    meet();
}

void client(int fd) {
    char byte;
    meet();
    SHOW(send(fd, "1", 1, 0));
    meet();
    SHOW(shutdown(fd, SHUT_WR));
    look(fd, "we have shut down");
    SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
    meet();
    meet();
    wait_for(fd, POLLHUP);
    look(fd, "both have shut down, data there");
    SHOW(recv(fd, &byte, 1, 0));
    look(fd, "both have shut down");
    SHOW(recv(fd, &byte, 1, 0));
    SHOW(close(fd));
}
