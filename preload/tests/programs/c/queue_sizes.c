#include "case.h"

#include <linux/sockios.h>

/* FIONREAD, SIOCOUTQ, and SO_RCVLOWAT. */
static int ask(int fd, unsigned long request) {
    int value = -7;
    return ioctl(fd, request, &value) == 0 ? value : -1;
}

static void expect_drained(int fd) {
    for (int i = 0; ask(fd, SIOCOUTQ) > 0; i++) {
        EXPECT(i < 10000);
        sleep_ms(1);
    }
    SHOW(ask(fd, SIOCOUTQ));
    SHOW(ask(fd, SIOCOUTQNSD));
}

static void low_water(int fd) {
    struct pollfd poll_fd = {fd, POLLIN, 0};
    int value = 0;
    socklen_t len = sizeof value;
    char text[20];
    set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 10);
    EXPECT(getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &value, &len) == 0);
    SHOW(value);
    meet();
    wait_for_bytes(fd, 5);
    SHOW(poll(&poll_fd, 1, 30));
    meet();
    SHOW(poll(&poll_fd, 1, 10000));
    SHOW(recv(fd, text, sizeof text, 0));
    note_bytes(text, 10);
    meet();
    /* A blocking read waits for as many, or the end. */
    SHOW(recv(fd, text, 10, 0));
    note_bytes(text, 10);
    set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
}

void server(int fd) {
    char text[20];
    SHOW(ask(fd, FIONREAD));
    meet();
    wait_for_bytes(fd, 5);
    SHOW(ask(fd, FIONREAD));
    SHOW(recv(fd, text, 2, 0));
    SHOW(ask(fd, FIONREAD));
    SHOW(recv(fd, text, 2, MSG_PEEK));
    SHOW(ask(fd, SIOCINQ));
    SHOW(recv(fd, text, 5, 0));
    SHOW(ask(fd, FIONREAD));
    low_water(fd);
    pong(fd);
}

void client(int fd) {
    SHOW(ask(fd, SIOCOUTQ));
    meet();
    SHOW(send(fd, "12345", 5, 0));
    expect_drained(fd);
    meet();
    SHOW(send(fd, "abcde", 5, 0));
    meet();
    SHOW(send(fd, "fghij", 5, 0));
    meet();
    SHOW(send(fd, "klmno", 5, 0));
    sleep_ms(30);
    SHOW(send(fd, "pqrst", 5, 0));
    ping(fd, "after all");
}
