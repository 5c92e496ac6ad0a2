#include "case.h"

/* select and pselect: three sets, timeouts, what is left of them, a closed descriptor. */
static void look(int fd, int other, struct timeval *timeout, const char *what) {
    fd_set in, out, except;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_ZERO(&except);
    FD_SET(fd, &in);
    FD_SET(fd, &out);
    FD_SET(fd, &except);
    FD_SET(other, &in);
    int found = select((fd > other ? fd : other) + 1, &in, &out, &except, timeout);
    if (found < 0) note("%s: %s", what, strerrorname_np(errno));
    else
        note("%s: %d, in %d, out %d, except %d, other %d", what, found, FD_ISSET(fd, &in), FD_ISSET(fd, &out),
             FD_ISSET(fd, &except), FD_ISSET(other, &in));
}

static int readable(int fd, struct timeval *timeout) {
    fd_set in;
    FD_ZERO(&in);
    FD_SET(fd, &in);
    return select(fd + 1, &in, NULL, NULL, timeout);
}

void server(int fd) {
    int ends[2];
    EXPECT(pipe(ends) == 0);
    struct timeval none = {0, 0}, some = {0, 30000}, much = {10, 0};
    look(fd, ends[0], &none, "nothing there");
    SHOW(readable(fd, &none));
    SHOW(readable(fd, &some));
    SHOW(some.tv_sec == 0 && some.tv_usec == 0);
    EXPECT(write(ends[1], "x", 1) == 1);
    look(fd, ends[0], NULL, "the pipe is ready");
    meet();
    SHOW(readable(fd, &much));
    SHOW(much.tv_sec < 10);
    look(fd, ends[0], &none, "both are ready");
    struct timespec nothing = {0, 0};
    fd_set in;
    FD_ZERO(&in);
    FD_SET(fd, &in);
    SHOW(pselect(fd + 1, &in, NULL, NULL, &nothing, NULL));
    SHOW(select(fd, &in, NULL, NULL, &none));
    SHOW(select(0, NULL, NULL, NULL, &none));
    pong(fd);
    int closed = ends[1];
    EXPECT(close(closed) == 0);
    look(fd, closed, &none, "a closed one");
    meet();
    SHOW(readable(fd, NULL));
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}

void client(int fd) {
    meet();
    sleep_ms(30);
    ping(fd, "one");
    meet();
    sleep_ms(30);
    SHOW(shutdown(fd, SHUT_WR));
    char byte;
    EXPECT(recv(fd, &byte, 1, 0) <= 0);
}
