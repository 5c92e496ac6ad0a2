#include "case.h"

/* Who closes with data unread resets the connection; likewise SO_LINGER with no time. The peer finds ECONNRESET, once,
 * and then EPIPE. */
static void lose(int fd) {
    struct pollfd poll_fd = {fd, POLLIN, 0};
    int error = -1;
    socklen_t len = sizeof error;
    char text[10];
    meet();
    int found = poll(&poll_fd, 1, 10000);
    note_poll("poll", found, poll_fd.revents);
    SHOW(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
    note("SO_ERROR: %s", error ? strerrorname_np(error) : "none");
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(close(fd));
}

static void lose_in_recv(int fd) {
    char text[10];
    meet();
    wait_readable(fd);
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
    SHOW(close(fd));
}

static void lose_in_send(int fd) {
    meet();
    wait_readable(fd);
    SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
    SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
    SHOW(close(fd));
}

void serve(int listener) {
    void (*const each[])(int) = {lose, lose_in_recv, lose_in_send, lose, lose_in_recv};
    for (int i = 0; i < 5; i++) {
        int fd = accept_from(listener);
        warm_up(fd, true);
        send_all(fd, "not read", 8);
        each[i](fd);
    }
}

void connect_and_run(uint16_t port) {
    for (int i = 0; i < 5; i++) {
        int fd = connect_to(port);
        warm_up(fd, false);
        wait_for_bytes(fd, 8);
        if (i >= 3) {
            char text[8];
            struct linger linger = {1, 0};
            recv_all(fd, text, 8);
            EXPECT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
        }
        SHOW(close(fd));
        meet();
    }
}
