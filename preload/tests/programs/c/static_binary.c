/* cc: -static */
#include "case.h"

/* A program without a dynamic loader: no library can be loaded into it. */
void server(int fd) {
    for (int i = 0; i < 30; i++) pong(fd);
    recv_filled(fd, 1000000, 1);
    SHOW(close(fd));
}

void client(int fd) {
    for (int i = 0; i < 30; i++) ping(fd, "static");
    send_filled(fd, 1000000, 1);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
