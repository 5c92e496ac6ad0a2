#include "case.h"

/* SO_RCVTIMEO and SO_SNDTIMEO: EAGAIN after the time, also with something read; and none for who does not wait. */
static void set_timeout(int fd, int option, long us) {
    struct timeval time = {us / 1000000, us % 1000000};
    EXPECT(setsockopt(fd, SOL_SOCKET, option, &time, sizeof time) == 0);
}

/* True if that took at least so long. */
static struct timespec before;

static void start(void) { clock_gettime(CLOCK_MONOTONIC, &before); }

static bool took(long ms) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - before.tv_sec) * 1000 + (now.tv_nsec - before.tv_nsec) / 1000000 >= ms;
}

void server(int fd) {
    char text[10];
    struct timeval time;
    socklen_t len = sizeof time;
    set_timeout(fd, SO_RCVTIMEO, 60000);
    EXPECT(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, &len) == 0);
    note("%ld s %ld us", (long)time.tv_sec, (long)time.tv_usec);
    start();
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(took(50));
    SHOW(read(fd, text, sizeof text));
    meet();
    wait_readable(fd);
    start();
    SHOW(recv(fd, text, sizeof text, MSG_WAITALL));
    SHOW(took(50));
    struct iovec part = {text, sizeof text};
    SHOW(readv(fd, &part, 1));
    struct pollfd poll_fd = {fd, POLLIN, 0};
    SHOW(poll(&poll_fd, 1, 10));
    set_timeout(fd, SO_RCVTIMEO, 0);
    meet();
    pong(fd);
    meet();
    /* Now the client writes until nobody takes it. */
    meet();
}

void client(int fd) {
    meet();
    SHOW(send(fd, "123", 3, 0));
    meet();
    sleep_ms(100);
    ping(fd, "without a limit");
    meet();
    set_timeout(fd, SO_SNDTIMEO, 60000);
    static char much[1 << 20];
    ssize_t n;
    start();
    while ((n = send(fd, much, sizeof much, 0)) == sizeof much) start();
    SHOW(n == -1 || n < (ssize_t)sizeof much);
    SHOW(took(50));
    /* How much of it is taken is the affair of the buffers. */
    EXPECT(send(fd, much, sizeof much, 0) < (ssize_t)sizeof much);
    EXPECT(write(fd, much, sizeof much) < (ssize_t)sizeof much);
    meet();
}
