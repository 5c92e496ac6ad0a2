#include "case.h"

/* Over ::1, and by a listener of both families that an IPv4 client calls. */
static int listen_v6(const char *host, uint16_t *port) {
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET6, SOCK_STREAM, 0);
    EXPECT(inet_pton(AF_INET6, host, &address.sin6_addr) == 1);
    EXPECT(bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 5) == 0);
    EXPECT(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
    *port = ntohs(address.sin6_port);
    return listener;
}

static void answer(int fd) {
    warm_up(fd, true);
    for (int i = 0; i < 40; i++) pong(fd);
    recv_filled(fd, 500000, 1);
    SHOW(close(fd));
}

static void ask(int fd) {
    warm_up(fd, false);
    for (int i = 0; i < 40; i++) ping(fd, "over IPv6");
    send_filled(fd, 500000, 1);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
    SHOW(close(fd));
}

void serve(int listener) {
    uint16_t ports[2];
    int own = listen_v6("::1", &ports[0]), mapped = listen_v6("::ffff:127.0.0.1", &ports[1]);
    int fd = accept_from(listener);
    send_all(fd, ports, sizeof ports);
    answer(accept_from(own));
    answer(accept_from(mapped));
    pong(fd);
}

void connect_and_run(uint16_t port) {
    uint16_t ports[2];
    int fd = connect_to(port);
    recv_all(fd, ports, sizeof ports);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(ports[0]), .sin6_addr = in6addr_loopback};
    int v6 = socket(AF_INET6, SOCK_STREAM, 0);
    SHOW(connect(v6, (struct sockaddr *)&address, sizeof address));
    ask(v6);
    ask(connect_to(ports[1]));
    ping(fd, "after all");
}
