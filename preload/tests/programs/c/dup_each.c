#include "case.h"

/* Copies of each kind; closing one leaves the others, and the end comes with the last. */
void server(int fd) {
    int copies[5];
    copies[0] = dup(fd);
    copies[1] = dup2(fd, 60);
    copies[2] = dup3(fd, 61, O_CLOEXEC);
    copies[3] = fcntl(fd, F_DUPFD, 70);
    copies[4] = fcntl(fd, F_DUPFD_CLOEXEC, 80);
    note("%d %d %d %d", copies[1], copies[2], copies[3] >= 70, copies[4] >= 80);
    SHOW(dup2(fd, fd) == fd);
    SHOW(dup3(fd, fd, 0));
    pong(fd);
    for (int i = 0; i < 5; i++) pong(copies[i]);
    SHOW(close(fd));
    for (int i = 0; i < 5; i++) {
        pong(copies[i]);
        recv_filled(copies[i], 70000, i);
        send_filled(copies[4], 70000, i);
        if (i < 4) EXPECT(close(copies[i]) == 0);
    }
    meet();
    SHOW(close(copies[4]));
}

void client(int fd) {
    for (int i = 0; i < 6; i++) ping(fd, "copy");
    for (int i = 0; i < 5; i++) {
        ping(fd, "copy that is left");
        send_filled(fd, 70000, i);
        recv_filled(fd, 70000, i);
    }
    char byte;
    SHOW(recv(fd, &byte, 1, MSG_DONTWAIT));
    meet();
    SHOW(recv(fd, &byte, 1, 0));
}
