#include "case.h"

/* Child and parent answer in turns, on the same connection; the end comes when both have closed it. */
void server(int fd) {
    int turn[2][2];
    char token = 0;
    EXPECT(pipe(turn[0]) == 0 && pipe(turn[1]) == 0);
    pid_t child = fork();
    int own = child == 0;
    if (own == 0) EXPECT(write(turn[0][1], &token, 1) == 1);
    for (int i = 0; i < 20; i++) {
        EXPECT(read(turn[own][0], &token, 1) == 1);
        pong(fd);
        EXPECT(write(turn[!own][1], &token, 1) == 1);
    }
    if (own == 1) _exit(0);
    note_child("child", child);
    pong(fd);
    SHOW(close(fd));
}

void client(int fd) {
    for (int i = 0; i < 40; i++) ping(fd, i % 2 ? "child" : "parent");
    ping(fd, "parent, who is left");
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
