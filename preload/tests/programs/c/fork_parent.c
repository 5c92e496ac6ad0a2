#include "case.h"

/* The child has nothing to do with the connection, and its end does not end it; as with BGSAVE. */
void server(int fd) {
    pong(fd);
    pid_t child = fork();
    if (child == 0) _exit(0);
    note_child("child", child);
    pong(fd);
    recv_filled(fd, 300000, 5);
    child = fork();
    if (child == 0) exit(3);
    pong(fd);
    note_child("child", child);
    pong(fd);
    SHOW(close(fd));
}

void client(int fd) {
    ping(fd, "before");
    ping(fd, "after the child");
    send_filled(fd, 300000, 5);
    ping(fd, "beside a child");
    ping(fd, "after it");
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
