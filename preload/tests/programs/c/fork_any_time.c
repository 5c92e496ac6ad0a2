#include "case.h"

/* A fork after each number of messages, and so between any two steps of a promotion. Who waits by epoll still hears of
 * everything. */
enum { ROUNDS = 48, AFTER = 40 };

static void fork_once(void) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    int status;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

static int watch(int fd) {
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {.fd = fd}};
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    return epoll;
}

/* The other end has sent something, and done what it could for the promotion, before the fork. */
static void receive(int epoll, int fd, int number, bool forks) {
    struct epoll_event event;
    int got;
    EXPECT(epoll_wait(epoll, &event, 1, 10000) == 1 && event.events == EPOLLIN);
    if (forks) fork_once();
    recv_all(fd, &got, sizeof got);
    EXPECT(got == number);
}

static void converse(int fd, bool is_server, bool forks, int round) {
    int epoll = watch(fd);
    for (int i = 0; i < round + AFTER; i++) {
        if (is_server) receive(epoll, fd, i, forks && i == round);
        send_all(fd, &i, sizeof i);
        if (!is_server) receive(epoll, fd, i, forks && i == round);
    }
    EXPECT(close(epoll) == 0);
}

void serve(int listener) {
    int warm = accept_from(listener);
    warm_up(warm, true);
    for (int i = 0; i < 2 * ROUNDS; i++) {
        int fd = accept_from(listener);
        converse(fd, true, i % 2 == 0, i / 2);
        EXPECT(close(fd) == 0);
    }
    note("all rounds");
    SHOW(close(warm));
}

void connect_and_run(uint16_t port) {
    int warm = connect_to(port);
    warm_up(warm, false);
    for (int i = 0; i < 2 * ROUNDS; i++) {
        int fd = connect_to(port);
        converse(fd, false, i % 2 == 1, i / 2);
        EXPECT(close(fd) == 0);
    }
    note("all rounds");
    SHOW(close(warm));
}
