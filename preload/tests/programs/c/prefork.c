#include "case.h"

/* Four processes take connections from one listener, one after the other. */
enum { CHILDREN = 4, CONNECTIONS = 12 };

static void child(int listener) {
    for (int i = 0; i < CONNECTIONS / CHILDREN; i++) {
        int fd = accept_from(listener);
        take_over();
        warm_up(fd, true);
        char text[6];
        recv_all(fd, text, sizeof text);
        send_all(fd, text, sizeof text);
        char byte;
        EXPECT(recv(fd, &byte, 1, 0) == 0 && close(fd) == 0);
    }
    _exit(0);
}

void serve(int listener) {
    pid_t children[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        if ((children[i] = fork()) == 0) child(listener);
    }
    for (int i = 0; i < CHILDREN; i++) note_child("child", children[i]);
}

void connect_and_run(uint16_t port) {
    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = connect_to(port);
        /* With the first one, to know that there is a promotion; the others are as they come. */
        warm_up(fd, false);
        char answer[6];
        send_all(fd, "prefor", 6);
        recv_all(fd, answer, 6);
        note_bytes(answer, 6);
        SHOW(close(fd));
    }
}
