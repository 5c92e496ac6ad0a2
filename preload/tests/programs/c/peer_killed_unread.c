#include "case.h"

/* The peer is killed before it has read what was sent to it: the connection is reset. */
void server(int fd) {
    char text[10];
    SHOW(send(fd, "not read", 8, 0));
    meet();
    kill(peer_pid(), SIGKILL);
    struct pollfd poll_fd = {fd, POLLIN, 0};
    SHOW(poll(&poll_fd, 1, 10000));
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
    SHOW(close(fd));
}

void client(int fd) {
    wait_for_bytes(fd, 8);
    note("not reading");
    meet();
    for (;;) pause();
}
