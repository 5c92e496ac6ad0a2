#include "case.h"

/* Another file takes the place of a connection: that ends it. The connection's number is used again. */
void server(int fd) {
    pong(fd);
    int null = open("/dev/null", O_RDWR);
    SHOW(dup2(null, fd) == fd);
    SHOW(write(fd, "into nothing", 12));
    char byte;
    SHOW(read(fd, &byte, 1));
    SHOW(recv(fd, &byte, 1, 0));
    SHOW(close(fd));
    int again = dup(null);
    SHOW(again == fd);
    SHOW(write(again, "x", 1));
}

void client(int fd) {
    ping(fd, "before");
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
