#include "case.h"

#include <sys/resource.h>

/* No descriptor is left: accept, dup and socket say EMFILE as ever, and connections carry on. */
static void use_up(void) {
    struct rlimit limit = {64, 64};
    EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    while (dup(2) >= 0) {}
    note("no more: %s", strerrorname_np(errno));
}

void serve(int listener) {
    use_up();
    SHOW(accept(listener, NULL, NULL));
    SHOW(socket(AF_INET, SOCK_STREAM, 0));
    SHOW(epoll_create1(0));
    /* Room for one, and nothing for anybody else. */
    EXPECT(close(63) == 0);
    int fd = SHOW(accept(listener, NULL, NULL));
    SHOW(dup(fd));
    for (int i = 0; i < 40; i++) pong(fd);
    recv_filled(fd, 1000000, 1);
    send_filled(fd, 1000000, 2);
    SHOW(accept(listener, NULL, NULL));
    SHOW(close(fd));
    meet();
    fd = SHOW(accept(listener, NULL, NULL));
    pong(fd);
    SHOW(close(fd));
}

void connect_and_run(uint16_t port) {
    use_up();
    EXPECT(close(63) == 0);
    int fd = connect_to(port);
    note("descriptor %d", fd);
    for (int i = 0; i < 40; i++) ping(fd, "with none to spare");
    send_filled(fd, 1000000, 1);
    recv_filled(fd, 1000000, 2);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
    SHOW(close(fd));
    meet();
    fd = connect_to(port);
    note("descriptor %d", fd);
    ping(fd, "again");
}
