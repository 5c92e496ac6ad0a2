#include "case.h"

/* A connection is given back to TCP by the client, which asks for signals of it, or goes on with a copy of it that was
 * handed over. The server knows nothing of that: it sleeps, looks and reads in every way that there is, and sends back
 * what comes. */
enum way { READ, POLL, SELECT, LEVEL, EDGE, EDGE_SHORT, WAYS };
static const char *const names[] = {"read", "poll", "select", "epoll", "epoll, edge", "epoll, edge, short reads"};

/* What is under way when it is given back: nothing, bytes that the client has not read, bytes on both sides. */
enum when { QUIET, UNREAD, CROSSING, WHENS };

enum { LEN = 1000, FEW = 40, MUCH = 4 << 20 };

static int eager(int fd) {
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return fd;
}

static void give_back(int fd) { EXPECT(fcntl(fd, F_SETOWN, 0) == 0); }

/* The same socket, of which nobody knows that it is. */
static int handed_over(int fd) {
    int channel[2];
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
    hand_over(channel[0], fd);
    EXPECT(close(fd) == 0);
    int new = take_handed(channel[1]);
    EXPECT(close(channel[0]) == 0 && close(channel[1]) == 0);
    return new;
}

/* Sleeps until there is something to read. */
static void await(enum way way, int epoll, int fd) {
    struct pollfd poll_fd = {fd, POLLIN, 0};
    struct epoll_event event;
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    if (way == POLL) EXPECT(poll(&poll_fd, 1, 10000) == 1);
    else if (way == SELECT) EXPECT(select(fd + 1, &set, NULL, NULL, &(struct timeval){10, 0}) == 1);
    else if (way >= LEVEL) EXPECT(epoll_wait(epoll, &event, 1, 10000) == 1);
}

/* Reads what is there, until there is no more; false at the end. */
static bool answer(enum way way, int fd) {
    static char piece[300 + 33];
    for (;;) {
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n < 0) EXPECT(errno == EAGAIN);
        if (n <= 0) return n < 0;
        struct pollfd poll_fd = {fd, POLLOUT, 0};
        EXPECT(poll(&poll_fd, 1, 10000) == 1);
        send_all(fd, piece, n);
        /* Less than was wanted is all that there is. */
        if (way == EDGE_SHORT && n < (ssize_t)sizeof piece) return true;
        if (way != EDGE && way != EDGE_SHORT) return true;
    }
}

static void echo(enum way way, int fd) {
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN | EPOLLRDHUP | (way >= EDGE ? EPOLLET : 0), {.fd = fd}};
    set_nonblocking(fd, way != READ);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    do await(way, epoll, fd);
    while (answer(way, fd));
    EXPECT(close(epoll) == 0 && close(fd) == 0);
}

static void exchange(int fd, uint64_t *at) {
    char bytes[LEN];
    fill(bytes, LEN, *at);
    send_all(fd, bytes, LEN);
    recv_all(fd, bytes, LEN);
    expect_filled(bytes, LEN, *at);
    *at += LEN;
}

static void send_more(int fd, size_t len, uint64_t from) {
    char bytes[LEN];
    fill(bytes, len, from);
    send_all(fd, bytes, len);
}

static void ask(enum when when, unsigned pause, bool hands_over, int fd) {
    uint64_t at = 0;
    char bytes[2 * LEN];
    for (int i = 0; i < FEW; i++) exchange(fd, &at);
    if (when != QUIET) send_more(fd, LEN, at);
    if (when == UNREAD) wait_for_bytes(fd, LEN);
    sleep_ms(pause);
    if (hands_over) fd = handed_over(fd);
    else give_back(fd);
    sleep_ms(pause);
    if (when == QUIET) send_more(fd, LEN, at);
    send_more(fd, LEN, at + LEN);
    wait_for_bytes(fd, 2 * LEN);
    wait_readable(fd);
    EXPECT(recv(fd, bytes, 2 * LEN, MSG_PEEK) == 2 * LEN);
    expect_filled(bytes, 2 * LEN, at);
    memset(bytes, 0, sizeof bytes);
    EXPECT(recv(fd, bytes, 2 * LEN, MSG_WAITALL) == 2 * LEN);
    expect_filled(bytes, 2 * LEN, at);
    at += 2 * LEN;
    EXPECT(recv(fd, bytes, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    sleep_ms(pause);
    for (int i = 0; i < FEW; i++) exchange(fd, &at);
    EXPECT(shutdown(fd, SHUT_WR) == 0);
    wait_readable(fd);
    EXPECT(recv(fd, bytes, 1, 0) == 0 && close(fd) == 0);
}

/* Both directions full, in an edge-triggered loop; given back in the middle. */
static void flow(int fd, bool gives_back) {
    static char piece[33333];
    size_t sent = 0, received = 0;
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLET, {.fd = fd}};
    set_nonblocking(fd, true);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    while (sent < MUCH || received < MUCH) {
        EXPECT(epoll_wait(epoll, &event, 1, 10000) == 1);
        for (ssize_t n; event.events & EPOLLIN && received < MUCH; received += n) {
            size_t most = MUCH - received < sizeof piece ? MUCH - received : sizeof piece;
            if ((n = read(fd, piece, most)) < 0) break;
            expect_filled(piece, n, received);
        }
        if (gives_back && received > MUCH / 3) {
            give_back(fd);
            gives_back = false;
        }
        for (ssize_t n; event.events & EPOLLOUT && sent < MUCH; sent += n) {
            size_t len = MUCH - sent < 22222 ? MUCH - sent : 22222;
            fill(piece, len, sent);
            if ((n = write(fd, piece, len)) < 0) break;
        }
    }
    EXPECT(close(epoll) == 0);
    set_nonblocking(fd, false);
}

/* Whoever sleeps in a read when another thread gives the connection back. */
static void *read_line(void *fd) {
    char byte;
    EXPECT(recv((int)(intptr_t)fd, &byte, 1, 0) == 1 && byte == '!');
    return NULL;
}

static void wake_reader(int fd) {
    uint64_t at = 0;
    pthread_t reader;
    for (int i = 0; i < FEW; i++) exchange(fd, &at);
    EXPECT(pthread_create(&reader, NULL, read_line, (void *)(intptr_t)fd) == 0);
    sleep_ms(20);
    give_back(fd);
    send_all(fd, "!", 1);
    EXPECT(pthread_join(reader, NULL) == 0);
    EXPECT(shutdown(fd, SHUT_WR) == 0 && close(fd) == 0);
}

/* Step by step, edge-triggered: nothing may look as if there were nothing new. */
static void show_next(int epoll, int limit) {
    struct epoll_event event;
    int found = epoll_wait(epoll, &event, 1, limit);
    note_epoll("next", found, &event);
}

static void see_steps(int fd) {
    char text[100];
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN | EPOLLET, {.fd = fd}};
    set_nonblocking(fd, true);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    meet();
    meet();
    show_next(epoll, 10000);
    SHOW(recv(fd, text, sizeof text, 0));
    SHOW(recv(fd, text, sizeof text, 0));
    meet();
    /* It was given back, and there is more. */
    meet();
    struct pollfd poll_fd = {epoll, POLLIN, 0};
    SHOW(poll(&poll_fd, 1, 10000));
    show_next(epoll, 10000);
    SHOW(recv(fd, text, sizeof text, 0));
    show_next(epoll, 20);
    EXPECT(close(epoll) == 0);
}

static void make_steps(int fd) {
    meet();
    send_all(fd, "abc", 3);
    meet();
    meet();
    give_back(fd);
    send_all(fd, "def", 3);
    meet();
}

/* As above, but nothing was read before. */
static void see_more(int fd) {
    char text[100];
    struct pollfd poll_fd = {fd, POLLIN, 0};
    for (int i = 0; i < FEW; i++) pong(fd);
    meet();
    SHOW(poll(&poll_fd, 1, 20));
    meet();
    wait_for_bytes(fd, 6);
    SHOW(recv(fd, text, sizeof text, 0));
    note_bytes(text, 6);
    SHOW(poll(&poll_fd, 1, 20));
    meet();
    pong(fd);
}

static void make_more(int fd, bool in_ring) {
    for (int i = 0; i < FEW; i++) ping(fd, "more");
    if (!in_ring) give_back(fd);
    meet();
    sleep_ms(40);
    send_all(fd, "abc", 3);
    if (in_ring) give_back(fd);
    send_all(fd, "def", 3);
    meet();
    meet();
    ping(fd, "by tcp");
}

static const unsigned pauses[] = {0, 1, 5};

void serve(int listener) {
    int fd = eager(accept_from(listener));
    warm_up(fd, true);
    for (enum way way = 0; way < WAYS; way++) {
        for (int i = 0; i < WHENS * 4; i++) echo(way, eager(accept_from(listener)));
        note("%s", names[way]);
    }
    for (int i = 0; i < 3; i++) {
        int one = eager(accept_from(listener));
        uint64_t at = 0;
        for (int j = 0; j < FEW; j++) exchange(one, &at);
        flow(one, i == 1);
        exchange(one, &at);
        EXPECT(close(one) == 0);
    }
    echo(READ, eager(accept_from(listener)));
    see_steps(fd);
    for (int i = 0; i < 2; i++) see_more(eager(accept_from(listener)));
}

void connect_and_run(uint16_t port) {
    int fd = eager(connect_to(port));
    warm_up(fd, false);
    for (enum way way = 0; way < WAYS; way++) {
        for (enum when when = 0; when < WHENS; when++) {
            for (int i = 0; i < 3; i++) ask(when, pauses[i], false, eager(connect_to(port)));
            ask(when, pauses[1], true, eager(connect_to(port)));
        }
    }
    for (int i = 0; i < 3; i++) {
        int one = eager(connect_to(port));
        uint64_t at = 0;
        for (int j = 0; j < FEW; j++) exchange(one, &at);
        flow(one, i != 1);
        exchange(one, &at);
        EXPECT(close(one) == 0);
    }
    wake_reader(eager(connect_to(port)));
    make_steps(fd);
    for (int i = 0; i < 2; i++) make_more(eager(connect_to(port)), i > 0);
}
