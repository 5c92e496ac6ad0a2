#include "case.h"

/* A socket that epoll watches before it is connected, edge-triggered, as nginx has those to its upstreams. */
enum { MESSAGES = 400, LENGTH = 3000 };

static int epoll;

/* Waits for these events; others may come before. */
static void await(uint32_t events) {
    struct epoll_event event = {0, {0}};
    while (!(event.events & events)) EXPECT(epoll_wait(epoll, &event, 1, 10000) == 1);
}

static void receive(int fd, char *into, size_t len) {
    for (size_t done = 0; done < len;) {
        ssize_t n = recv(fd, into + done, len - done, 0);
        EXPECT(n > 0 || (n < 0 && errno == EAGAIN));
        if (n > 0) done += n;
        else await(EPOLLIN);
    }
}

void serve(int listener) {
    int fd = accept_from(listener);
    char text[LENGTH];
    for (int i = 0; i < MESSAGES; i++) {
        /* Now and then the client is asleep by the time. */
        if (i % 40 == 39) sleep_ms(5);
        recv_all(fd, text, sizeof text);
        expect_filled(text, sizeof text, i);
        send_all(fd, text, sizeof text);
    }
    SHOW(recv(fd, text, 1, 0));
    SHOW(close(fd));
}

void connect_and_run(uint16_t port) {
    struct sockaddr_in address = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), error = -1;
    socklen_t len = sizeof error;
    char text[LENGTH];
    epoll = epoll_create1(0);
    struct epoll_event wanted = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.fd = fd}};
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted));
    SHOW(connect(fd, (struct sockaddr *)&address, sizeof address));
    await(EPOLLOUT);
    SHOW(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
    SHOW(error);
    for (int i = 0; i < MESSAGES; i++) {
        fill(text, sizeof text, i);
        send_all(fd, text, sizeof text);
        receive(fd, text, sizeof text);
        expect_filled(text, sizeof text, i);
    }
    SHOW(close(fd));
}
