#include "case.h"

/* poll and ppoll: negative and closed descriptors, the same one twice, no descriptors, several kinds together. */
static void look(struct pollfd *fds, int count, int timeout, const char *what) {
    int found = poll(fds, count, timeout);
    note("%s: %d", what, found);
    for (int i = 0; i < count; i++) note_poll("  ", 1, fds[i].revents);
}

void server(int fd) {
    int ends[2];
    EXPECT(pipe(ends) == 0);
    int closed = dup(ends[0]);
    EXPECT(close(closed) == 0);
    struct pollfd fds[5] = {
        {fd, POLLIN, 7}, {-1, POLLIN, 7}, {closed, POLLIN, 7}, {ends[0], POLLIN, 7}, {ends[1], POLLOUT, 7}};
    look(fds, 5, 0, "five");
    look(fds, 2, 0, "two");
    look(fds, 2, 30, "two, waiting");
    SHOW(poll(NULL, 0, 10));
    EXPECT(write(ends[1], "x", 1) == 1);
    look(fds, 4, 10000, "the pipe is ready");
    meet();
    wait_readable(fd);
    look(fds, 4, 10000, "both are ready");
    fds[1] = fds[0];
    fds[1].events = POLLOUT;
    look(fds, 2, 10000, "the same twice");
    fds[0].fd = ~fd;
    look(fds, 1, 0, "ignored");
    fds[0].fd = fd;
    struct timespec none = {0, 0}, wrong = {0, -1};
    sigset_t mask;
    sigemptyset(&mask);
    SHOW(ppoll(fds, 1, &none, &mask));
    SHOW(ppoll(fds, 1, NULL, NULL));
    SHOW(ppoll(fds, 1, &wrong, NULL));
    pong(fd);
    SHOW(ppoll(fds, 1, &none, &mask));
    meet();
    look(fds, 1, -1, "sleeping until it comes");
    pong(fd);
}

void client(int fd) {
    meet();
    ping(fd, "one");
    meet();
    sleep_ms(30);
    ping(fd, "two");
}
