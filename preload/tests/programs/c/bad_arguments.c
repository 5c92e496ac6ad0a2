#include "case.h"

#ifndef NOWHERE
#define NOWHERE (char *)16
#endif

/* Null pointers (and their like), descriptors that are none, calls that sockets do not know; the connection lives on. */
void server(int fd) {
    char text[10];
    /* The compiler is not to see it. */
    char *volatile nowhere = NOWHERE;
    struct iovec parts[2] = {{text, 2}, {nowhere, 10}};
    meet();
    wait_for_bytes(fd, 5);
    SHOW(recv(fd, nowhere, 10, 0));
    SHOW(read(fd, nowhere, 10));
    SHOW(send(fd, nowhere, 10, 0));
    SHOW(readv(fd, &parts[1], 1));
    SHOW(recv(fd, text, 5, 0));
    note_bytes(text, 5);
    SHOW(pread(fd, text, 5, 0));
    SHOW(pwrite(fd, text, 5, 0));
    SHOW(lseek(fd, 0, SEEK_CUR));
    SHOW(fsync(fd));
    SHOW(ftruncate(fd, 0));
    SHOW(ioctl(fd, 0x12345678, 0));
    SHOW(fcntl(fd, 12345, 0));
    SHOW(recv(12345, text, 5, 0));
    SHOW(close(12345));
    SHOW(dup2(fd, -1));
    SHOW(dup3(fd, 50, 12345));
    SHOW(shutdown(12345, SHUT_WR));
    struct epoll_event event;
    SHOW(epoll_wait(12345, &event, 1, 0));
    SHOW(epoll_wait(fd, &event, 1, 0));
    SHOW(recv(0, text, 5, 0));
    pong(fd);
}

void client(int fd) {
    SHOW(send(fd, "12345", 5, 0));
    meet();
    ping(fd, "still there");
}
