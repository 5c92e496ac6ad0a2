#include "case.h"

/* The child serves; the parent has closed its copy. */
void server(int fd) {
    pid_t child = fork();
    if (child == 0) {
        pong(fd);
        recv_filled(fd, 300000, 5);
        send_filled(fd, 300000, 6);
        _exit(SHOW(close(fd)) ? 1 : 7);
    }
    EXPECT(close(fd) == 0);
    note_child("child", child);
}

void client(int fd) {
    ping(fd, "to the child");
    send_filled(fd, 300000, 5);
    recv_filled(fd, 300000, 6);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
