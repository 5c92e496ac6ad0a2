#include "case.h"

/* shutdown in each direction, twice, and what reading and writing say then. */
static volatile sig_atomic_t pipes;

static void count(int signal) { pipes++; }

static void serve_half_closed(int fd) {
    char text[10];
    SHOW(recv(fd, text, 4, MSG_WAITALL));
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(recv(fd, text, sizeof text, 0));
    /* Once both directions are shut, the other end has no connection to shut down any more. */
    meet();
    send_filled(fd, 500000, 1);
    SHOW(shutdown(fd, SHUT_WR));
    SHOW(shutdown(fd, 7));
    SHOW(close(fd));
}

static void serve_shut_for_reading(int fd) {
    char text[10];
    SHOW(shutdown(fd, SHUT_RD));
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(send(fd, "still", 5, 0));
    meet();
    SHOW(recv(fd, text, 5, 0));
    SHOW(recv(fd, text, sizeof text, 0));
    meet();
    SHOW(close(fd));
}

static void serve_shut_for_both(int fd) {
    char text[10];
    SHOW(shutdown(fd, SHUT_RDWR));
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
    meet();
    SHOW(close(fd));
}

void serve(int listener) {
    void (*const each[])(int) = {serve_half_closed, serve_shut_for_reading, serve_shut_for_both};
    for (int i = 0; i < 3; i++) {
        int fd = accept_from(listener);
        warm_up(fd, true);
        each[i](fd);
    }
}

void connect_and_run(uint16_t port) {
    char text[10];
    EXPECT(signal(SIGPIPE, count) != SIG_ERR);
    int fd = connect_to(port);
    warm_up(fd, false);
    send_all(fd, "1234", 4);
    SHOW(shutdown(fd, SHUT_WR));
    SHOW(shutdown(fd, SHUT_WR));
    SHOW(send(fd, "x", 1, 0));
    SHOW(write(fd, "x", 1));
    SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
    note("%d times SIGPIPE", (int)pipes);
    meet();
    recv_filled(fd, 500000, 1);
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(close(fd));

    fd = connect_to(port);
    warm_up(fd, false);
    SHOW(recv(fd, text, 5, MSG_WAITALL));
    SHOW(send(fd, "taken", 5, 0));
    meet();
    meet();
    SHOW(close(fd));

    fd = connect_to(port);
    warm_up(fd, false);
    SHOW(recv(fd, text, sizeof text, 0));
    meet();
    SHOW(close(fd));
}
