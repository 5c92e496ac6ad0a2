#include "case.h"

/* Close-on-exec ends the connection. */
void server(int fd) {
    pong(fd);
    SHOW(fcntl(fd, F_SETFD, FD_CLOEXEC));
    SHOW(fcntl(fd, F_GETFD));
    again("", fd);
}

void executed(int argc, char **argv) {
    SHOW(fcntl(atoi(argv[2]), F_GETFD));
    meet();
}

void client(int fd) {
    ping(fd, "before");
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
    meet();
}
