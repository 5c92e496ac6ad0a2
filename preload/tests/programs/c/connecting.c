#include "case.h"

/* connect, blocking and not, twice, to nobody; names of both ends; the state in options. */
static void names(int fd, uint16_t port, bool is_server) {
    struct sockaddr_in own, peer;
    socklen_t len = sizeof own;
    SHOW(getsockname(fd, (struct sockaddr *)&own, &len));
    SHOW(getpeername(fd, (struct sockaddr *)&peer, &len));
    SHOW(ntohs(is_server ? own.sin_port : peer.sin_port) == port);
    SHOW(own.sin_addr.s_addr == htonl(INADDR_LOOPBACK) && peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
}

static void options(int fd) {
    int value;
    socklen_t len = sizeof value;
    const int levels[][2] = {{SOL_SOCKET, SO_TYPE}, {SOL_SOCKET, SO_ERROR}, {SOL_SOCKET, SO_PROTOCOL},
                             {SOL_SOCKET, SO_DOMAIN}, {SOL_SOCKET, SO_ACCEPTCONN}, {IPPROTO_TCP, TCP_NODELAY}};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        SHOW(getsockopt(fd, levels[i][0], levels[i][1], &value, &len));
        note("  option %d: %d", levels[i][1], value);
    }
    struct tcp_info info;
    len = sizeof info;
    SHOW(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len));
    note("  state %d", info.tcpi_state);
}

void serve(int listener) {
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    EXPECT(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
    uint16_t port = ntohs(address.sin_port);
    set_nonblocking(listener, true);
    SHOW(accept(listener, NULL, NULL));
    SHOW(accept4(listener, NULL, NULL, 0x40000000));
    meet();
    wait_readable(listener);
    int fd = accept4(listener, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    SHOW(len);
    SHOW(fcntl(fd, F_GETFD));
    SHOW(fcntl(fd, F_GETFL));
    set_nonblocking(fd, false);
    warm_up(fd, true);
    names(fd, port, true);
    options(fd);
    pong(fd);
    SHOW(accept(fd, NULL, NULL));
    SHOW(listen(fd, 1));
    SHOW(bind(fd, (struct sockaddr *)&address, len));
    SHOW(close(fd));
}

void connect_and_run(uint16_t port) {
    struct sockaddr_in address = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
    struct sockaddr_in nobody = {AF_INET, htons(1), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
    SHOW(send(fd, &byte, 1, MSG_NOSIGNAL));
    SHOW(shutdown(fd, SHUT_WR));
    SHOW(connect(fd, (struct sockaddr *)&nobody, sizeof nobody));
    SHOW(close(fd));
    meet();
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SHOW(connect(fd, (struct sockaddr *)&address, sizeof address));
    struct pollfd poll_fd = {fd, POLLOUT, 0};
    int found = poll(&poll_fd, 1, 10000);
    note_poll("poll", found, poll_fd.revents);
    SHOW(connect(fd, (struct sockaddr *)&address, sizeof address));
    SHOW(connect(fd, (struct sockaddr *)&address, sizeof address));
    set_nonblocking(fd, false);
    warm_up(fd, false);
    names(fd, port, false);
    options(fd);
    ping(fd, "connected");
    SHOW(connect(fd, (struct sockaddr *)&address, sizeof address));
    SHOW(recv(fd, &byte, 1, 0));
    SHOW(close(fd));
}
