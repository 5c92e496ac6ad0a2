#include "case.h"

/* TCP_CORK, MSG_MORE and TCP_NODELAY: what is held back comes when it is let go, and nothing is held for ever. */
void server(int fd) {
    char text[100];
    meet();
    recv_all(fd, text, 10);
    note_bytes(text, 10);
    recv_all(fd, text, 10);
    note_bytes(text, 10);
    recv_all(fd, text, 10);
    note_bytes(text, 10);
    pong(fd);
}

void client(int fd) {
    int value = 0;
    socklen_t len = sizeof value;
    meet();
    set_int(fd, IPPROTO_TCP, TCP_CORK, 1);
    SHOW(send(fd, "01234", 5, 0));
    SHOW(write(fd, "56789", 5));
    set_int(fd, IPPROTO_TCP, TCP_CORK, 0);
    SHOW(send(fd, "abcde", 5, MSG_MORE));
    SHOW(send(fd, "fghij", 5, 0));
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    EXPECT(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len) == 0);
    SHOW(value);
    SHOW(send(fd, "klmno", 5, MSG_MORE));
    SHOW(send(fd, "pqrst", 5, MSG_EOR));
    ping(fd, "after all");
}
