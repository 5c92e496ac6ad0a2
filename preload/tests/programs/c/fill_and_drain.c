#include "case.h"

/* Non-blocking by O_NONBLOCK, FIONBIO and MSG_DONTWAIT: written until it is full, read until it is empty, in turns. */
static size_t fill_up(int fd, size_t from) {
    static char piece[12345];
    size_t sent = 0;
    for (;;) {
        fill(piece, sizeof piece, from + sent);
        ssize_t n = send(fd, piece, sizeof piece, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) break;
        sent += n;
    }
    EXPECT(errno == EAGAIN);
    return sent;
}

static void say_size(int fd, size_t size) { send_all(fd, &size, sizeof size); }

void server(int fd) {
    char byte;
    int on = 1, off = 0;
    SHOW(ioctl(fd, FIONBIO, &on));
    SHOW(fcntl(fd, F_GETFL) & O_NONBLOCK);
    SHOW(recv(fd, &byte, 1, 0));
    SHOW(read(fd, &byte, 1));
    SHOW(ioctl(fd, FIONBIO, &off));
    SHOW(fcntl(fd, F_GETFL) & O_NONBLOCK);
    SHOW(recv(fd, &byte, 1, MSG_DONTWAIT));
    set_nonblocking(fd, true);
    SHOW(recv(fd, &byte, 1, MSG_WAITALL));
    set_nonblocking(fd, false);
    for (size_t round = 0, from = 0; round < 5; round++) {
        meet();
        size_t sent = fill_up(fd, from);
        SHOW(sent > 100000);
        struct pollfd poll_fd = {fd, POLLOUT, 0};
        SHOW(poll(&poll_fd, 1, 0));
        meet();
        SHOW(poll(&poll_fd, 1, 10000));
        from += sent;
        say_size(fd, from);
        /* The client answers when it has read so far. */
        pong(fd);
        from += sizeof from;
    }
}

void client(int fd) {
    static char piece[100000];
    size_t from = 0;
    for (int round = 0; round < 5; round++) {
        meet();
        meet();
        /* The size comes last; what is behind it nobody has sent yet. */
        size_t end = 0, had = from;
        while (end != from || from == had) {
            wait_readable(fd);
            ssize_t n = recv(fd, piece, sizeof piece, MSG_DONTWAIT);
            EXPECT(n > 0);
            from += n;
            if (n < 8) die("the size came in parts");
            memcpy(&end, piece + n - 8, 8);
            end += 8;
            if (end == from) n -= 8;
            expect_filled(piece, n, from - n - (end == from ? 8 : 0));
        }
        ping(fd, "drained");
    }
}
