#include "case.h"

/* As inetd does: the connection becomes standard input and output of another program. */
void server(int fd) {
    pid_t child = fork();
    if (child == 0) {
        EXPECT(dup2(fd, 0) == 0 && dup2(fd, 1) == 1);
        close(fd);
        execlp("cat", "cat", (char *)NULL);
        die("no cat");
    }
    SHOW(close(fd));
    note_child("cat", child);
}

static void *write_all(void *fd) {
    send_filled((int)(intptr_t)fd, 2000000, 9);
    EXPECT(shutdown((int)(intptr_t)fd, SHUT_WR) == 0);
    return NULL;
}

void client(int fd) {
    pthread_t writer;
    EXPECT(pthread_create(&writer, NULL, write_all, (void *)(intptr_t)fd) == 0);
    recv_filled(fd, 2000000, 9);
    EXPECT(pthread_join(writer, NULL) == 0);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
