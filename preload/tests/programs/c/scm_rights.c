#include "case.h"

/* The connection is handed to another process through a unix socket, and closed by the one who had it. The receiver
 * exists before there is a connection, so it inherits none. */
void serve(int listener) {
    int channel[2];
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = take_handed(channel[1]);
        for (int i = 0; i < 30; i++) pong(fd);
        recv_filled(fd, 300000, 5);
        send_filled(fd, 300000, 6);
        _exit(SHOW(close(fd)) ? 1 : 0);
    }
    int fd = accept_from(listener);
    warm_up(fd, true);
    pong(fd);
    hand_over(channel[0], fd);
    EXPECT(close(fd) == 0);
    note_child("child", child);
}

void client(int fd) {
    ping(fd, "before");
    for (int i = 0; i < 30; i++) ping(fd, "after");
    send_filled(fd, 300000, 5);
    recv_filled(fd, 300000, 6);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
