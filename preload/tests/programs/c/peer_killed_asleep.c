#include "case.h"

/* Who sleeps in read, write, poll or epoll_wait wakes up when the peer is killed. */
static int connection;
static long results[4];

static void *sleep_in_recv(void *unused) {
    char byte;
    results[0] = recv(connection, &byte, 1, 0);
    return NULL;
}

static void *sleep_in_poll(void *unused) {
    struct pollfd poll_fd = {connection, POLLIN, 0};
    results[1] = poll(&poll_fd, 1, 20000);
    return NULL;
}

static void *sleep_in_epoll(void *unused) {
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLRDHUP, {.fd = connection}};
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, connection, &event) == 0);
    results[2] = epoll_wait(epoll, &event, 1, 20000);
    return NULL;
}

static void *sleep_in_send(void *unused) {
    static char much[1 << 20];
    while (send(connection, much, sizeof much, MSG_NOSIGNAL) > 0) {}
    results[3] = errno == ECONNRESET || errno == EPIPE;
    return NULL;
}

void server(int fd) {
    void *(*const works[])(void *) = {sleep_in_recv, sleep_in_poll, sleep_in_epoll, sleep_in_send};
    pthread_t threads[4];
    connection = fd;
    for (int i = 0; i < 4; i++) EXPECT(pthread_create(&threads[i], NULL, works[i], NULL) == 0);
    meet();
    sleep_ms(50);
    kill(peer_pid(), SIGKILL);
    for (int i = 0; i < 4; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
    /* The one in recv finds the reset, unless the one in send has taken it. */
    SHOW(results[0] <= 0);
    SHOW(results[1]);
    SHOW(results[2]);
    SHOW(results[3]);
}

void client(int fd) {
    note("waiting for the end");
    meet();
    for (;;) pause();
}
