#include "case.h"

/* The parent ends at once, and its child goes on in the background. */
void server(int fd) {
    pid_t parent = getpid();
    pid_t child = fork();
    if (child > 0) return;
    while (getppid() == parent) sleep_ms(1);
    take_over();
    for (int i = 0; i < 30; i++) pong(fd);
    recv_filled(fd, 300000, 5);
    send_filled(fd, 300000, 6);
    SHOW(close(fd));
}

void client(int fd) {
    for (int i = 0; i < 30; i++) ping(fd, "to the one who is left");
    send_filled(fd, 300000, 5);
    recv_filled(fd, 300000, 6);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
