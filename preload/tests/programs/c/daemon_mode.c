#include "case.h"

void server(int fd) {
    pong(fd);
    EXPECT(daemon(1, 0) == 0);
    for (int i = 0; i < 30; i++) pong(fd);
    recv_filled(fd, 300000, 5);
    SHOW(close(fd));
}

void client(int fd) {
    ping(fd, "before");
    for (int i = 0; i < 30; i++) ping(fd, "to the daemon");
    send_filled(fd, 300000, 5);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
