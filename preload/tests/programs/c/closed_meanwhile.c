#include "case.h"

/* One thread closes or shuts down a socket that another waits on. */
static int connection;
static long result;

static void *wait_in_recv(void *unused) {
    char byte;
    result = recv(connection, &byte, 1, 0);
    return NULL;
}

static void *wait_in_poll(void *unused) {
    struct pollfd poll_fd = {connection, POLLIN, 0};
    int found = poll(&poll_fd, 1, 10000);
    result = found << 8 | poll_fd.revents;
    return NULL;
}

static void woken_by_shutdown(int fd, int how, void *(*work)(void *)) {
    pthread_t thread;
    connection = fd;
    EXPECT(pthread_create(&thread, NULL, work, NULL) == 0);
    sleep_ms(50);
    SHOW(shutdown(fd, how));
    EXPECT(pthread_join(thread, NULL) == 0);
    SHOW(result);
}

void serve(int listener) {
    for (int i = 0; i < 4; i++) {
        int fd = accept_from(listener);
        warm_up(fd, true);
        woken_by_shutdown(fd, i % 2 ? SHUT_RDWR : SHUT_RD, i < 2 ? wait_in_recv : wait_in_poll);
        SHOW(close(fd));
    }
}

void connect_and_run(uint16_t port) {
    for (int i = 0; i < 4; i++) {
        int fd = connect_to(port);
        warm_up(fd, false);
        char byte;
        SHOW(recv(fd, &byte, 1, 0));
        SHOW(close(fd));
    }
}
