#include "case.h"

/* The checking variants, which a compiler takes where it knows the buffer but not the length. */
static volatile size_t one = 1, five = 5, ten = 10;

void server(int fd) {
    char text[20];
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    SHOW(recv(fd, text, five, MSG_WAITALL));
    note_bytes(text, 5);
    SHOW(read(fd, text, five) > 0);
    meet();
    wait_for_bytes(fd, 10);
    SHOW(recvfrom(fd, text, ten, 0, (struct sockaddr *)&address, &len));
    note("address of %u bytes", len);
    struct pollfd fds[1] = {{fd, POLLIN, 0}};
    SHOW(poll(fds, one, 0));
    struct timespec none = {0, 0};
    SHOW(ppoll(fds, one, &none, NULL));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd * one, &set);
    struct timeval no_time = {0, 0};
    SHOW(select(fd + 1, &set, NULL, NULL, &no_time));
    SHOW(FD_ISSET(fd * one, &set));
    SHOW(dprintf(fd, "%zu is %s\n", ten, "ten"));
    pong(fd);
}

void client(int fd) {
    char text[20];
    SHOW(send(fd, "1234567890", 10, 0));
    meet();
    SHOW(send(fd, "abcdefghij", 10, 0));
    SHOW(recv(fd, text, ten, MSG_WAITALL));
    note_bytes(text, 9);
    ping(fd, "after all");
}
