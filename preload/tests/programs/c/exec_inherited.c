#include "case.h"

/* The connection outlives exec: the same program, started anew in this process. */
void server(int fd) {
    pong(fd);
    SHOW(fcntl(fd, F_GETFD));
    again("", fd);
}

void executed(int argc, char **argv) {
    int fd = atoi(argv[2]);
    for (int i = 0; i < 30; i++) pong(fd);
    recv_filled(fd, 300000, 5);
    send_filled(fd, 300000, 6);
    SHOW(close(fd));
}

void client(int fd) {
    ping(fd, "before");
    for (int i = 0; i < 30; i++) ping(fd, "after");
    send_filled(fd, 300000, 5);
    recv_filled(fd, 300000, 6);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
