#include "case.h"

/* One loop over connections, a pipe and a timer's worth of waiting: a busy connection does not starve the others. */
enum { CONNECTIONS = 3, ROUNDS = 300 };

static void watch(int epoll, int fd) {
    struct epoll_event event = {EPOLLIN, {.fd = fd}};
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
}

void serve(int listener) {
    int epoll = epoll_create1(0), from_pipe = 0, echoed = 0, ended = 0;
    int ends[2];
    EXPECT(pipe(ends) == 0);
    watch(epoll, ends[0]);
    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = accept_from(listener);
        warm_up(fd, true);
        set_nonblocking(fd, true);
        watch(epoll, fd);
    }
    meet();
    while (ended < CONNECTIONS) {
        struct epoll_event events[2];
        int found = epoll_wait(epoll, events, 2, 20000);
        EXPECT(found > 0);
        for (int i = 0; i < found; i++) {
            char text[100];
            ssize_t n = read(events[i].data.fd, text, sizeof text);
            EXPECT(n >= 0);
            if (events[i].data.fd == ends[0]) {
                from_pipe += n;
            } else if (n == 0) {
                ended++;
                EXPECT(close(events[i].data.fd) == 0);
            } else {
                echoed += n;
                send_all(events[i].data.fd, text, n);
                if (echoed % CONNECTIONS == 0) EXPECT(write(ends[1], "p", 1) == 1);
            }
        }
    }
    char rest[1000];
    set_nonblocking(ends[0], true);
    ssize_t n = read(ends[0], rest, sizeof rest);
    note("echoed %d, pipe %d", echoed, (int)(from_pipe + (n > 0 ? n : 0)));
    SHOW(from_pipe > echoed / CONNECTIONS / 2);
}

void connect_and_run(uint16_t port) {
    int fds[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) {
        fds[i] = connect_to(port);
        warm_up(fds[i], false);
    }
    meet();
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CONNECTIONS; i++) {
            char sent = 'a' + i, got;
            send_all(fds[i], &sent, 1);
            recv_all(fds[i], &got, 1);
            EXPECT(got == sent);
        }
    }
    for (int i = 0; i < CONNECTIONS; i++) SHOW(close(fds[i]));
}
