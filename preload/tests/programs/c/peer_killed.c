#include "case.h"

/* The peer is killed: what it had sent is read, then comes the end. With data that it had not read: a reset. */
static void serve_read_all(int fd) {
    meet();
    kill(peer_pid(), SIGKILL);
    recv_filled(fd, 100000, 1);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
    struct pollfd poll_fd = {fd, POLLIN | POLLRDHUP, 0};
    int found = poll(&poll_fd, 1, 0);
    note_poll("poll", found, poll_fd.revents);
    SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
    SHOW(close(fd));
}

void server(int fd) { serve_read_all(fd); }

void client(int fd) {
    send_filled(fd, 100000, 1);
    note("sent");
    /* All of it has arrived, at TCP's end or in the ring. */
    meet();
    for (;;) pause();
}
