#include "case.h"

#include <sys/un.h>

/* What is no TCP connection stays as it is: UDP, unix sockets, pipes, beside a connection. */
static void unix_pair(int type) {
    int pair[2];
    char text[20];
    EXPECT(socketpair(AF_UNIX, type, 0, pair) == 0);
    for (int i = 0; i < 50; i++) {
        EXPECT(send(pair[0], "unix", 4, 0) == 4);
        EXPECT(recv(pair[1], text, sizeof text, 0) == 4);
    }
    note_bytes(text, 4);
    if (type != SOCK_DGRAM) {
        SHOW(shutdown(pair[0], SHUT_WR));
        SHOW(recv(pair[1], text, sizeof text, 0));
    }
    EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
}

static void udp(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    char text[20];
    EXPECT(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0);
    EXPECT(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    SHOW(connect(fd, (struct sockaddr *)&address, len));
    for (int i = 0; i < 50; i++) {
        EXPECT(send(fd, "datagram", 8, 0) == 8);
        EXPECT(recv(fd, text, 4, MSG_TRUNC) == 8);
    }
    note_bytes(text, 4);
    EXPECT(close(fd) == 0);
}

static void through_pipe(void) {
    int ends[2];
    char text[20];
    EXPECT(pipe2(ends, O_CLOEXEC) == 0);
    SHOW(write(ends[1], "pipe", 4));
    SHOW(read(ends[0], text, sizeof text));
    SHOW(recv(ends[0], text, sizeof text, 0));
    EXPECT(close(ends[0]) == 0 && close(ends[1]) == 0);
}

static void each(void) {
    unix_pair(SOCK_STREAM);
    unix_pair(SOCK_SEQPACKET);
    unix_pair(SOCK_DGRAM);
    udp();
    through_pipe();
}

void server(int fd) {
    pong(fd);
    each();
    pong(fd);
}

void client(int fd) {
    ping(fd, "before");
    each();
    ping(fd, "after");
}
