#include "case.h"

/* As event loops do it: edge-triggered in and out, read and written until EAGAIN; much data both ways at once. */
enum { BYTES = 8 << 20 };

struct flow {
    size_t received, sent;
    bool ended;
};

static void read_all_there(int fd, struct flow *flow) {
    static char piece[33333];
    ssize_t n;
    while ((n = read(fd, piece, sizeof piece)) > 0) {
        expect_filled(piece, n, flow->received);
        flow->received += n;
    }
    flow->ended |= n == 0;
    EXPECT(n == 0 || errno == EAGAIN);
}

static void write_all_that_fits(int fd, struct flow *flow) {
    static char piece[22222];
    while (flow->sent < BYTES) {
        size_t len = BYTES - flow->sent < sizeof piece ? BYTES - flow->sent : sizeof piece;
        fill(piece, len, flow->sent);
        ssize_t n = write(fd, piece, len);
        if (n < 0) {
            EXPECT(errno == EAGAIN);
            return;
        }
        flow->sent += n;
        if (flow->sent == BYTES) SHOW(shutdown(fd, SHUT_WR));
    }
}

static void loop(int fd) {
    struct flow flow = {0, 0, false};
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.fd = fd}};
    set_nonblocking(fd, true);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    while (!flow.ended || flow.sent < BYTES) {
        EXPECT(epoll_wait(epoll, &event, 1, 20000) == 1);
        if (event.events & (EPOLLIN | EPOLLRDHUP)) read_all_there(fd, &flow);
        if (event.events & EPOLLOUT) write_all_that_fits(fd, &flow);
    }
    note("sent %zu, received %zu", flow.sent, flow.received);
}

void server(int fd) { loop(fd); }
void client(int fd) { loop(fd); }
