#include "case.h"

/* The peer is stopped for a while: writing goes on until it is full, nothing is lost, and later all goes on. */
enum { BYTES = 30 << 20 };

void server(int fd) {
    meet();
    EXPECT(kill(peer_pid(), SIGSTOP) == 0);
    set_nonblocking(fd, true);
    static char piece[10000];
    size_t sent = 0;
    ssize_t n = 0;
    while (sent < BYTES) {
        fill(piece, sizeof piece, sent);
        n = send(fd, piece, sizeof piece, MSG_NOSIGNAL);
        if (n < 0) break;
        sent += n;
    }
    note("%s", sent < BYTES && errno == EAGAIN ? "full, as it should be" : "not full");
    struct pollfd poll_fd = {fd, POLLOUT, 0};
    SHOW(poll(&poll_fd, 1, 50));
    EXPECT(kill(peer_pid(), SIGCONT) == 0);
    SHOW(poll(&poll_fd, 1, 10000));
    set_nonblocking(fd, false);
    send_filled(fd, BYTES - sent, sent);
    pong(fd);
    SHOW(close(fd));
}

void client(int fd) {
    meet();
    recv_filled(fd, BYTES, 0);
    ping(fd, "after all");
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
