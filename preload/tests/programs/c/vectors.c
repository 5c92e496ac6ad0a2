#include "case.h"

#include <limits.h>

/* readv, writev, recvmsg, sendmsg, recvfrom, sendto: parts of all sizes, none, too many, and control data. */
void server(int fd) {
    char a[10], b[10], c[100];
    struct iovec parts[4] = {{a, 3}, {b, 0}, {NULL, 0}, {c, 100}};
    meet();
    wait_for_bytes(fd, 16);
    SHOW(readv(fd, parts, 4));
    note_bytes(a, 3);
    note_bytes(c, 13);
    struct sockaddr_in from = {0};
    char control[100];
    meet();
    struct msghdr message = {&from, sizeof from, parts, 1, control, sizeof control, 0x7fff};
    meet();
    wait_for_bytes(fd, 10);
    SHOW(recvmsg(fd, &message, 0));
    note("flags %#x, name %u, control %zu", message.msg_flags, message.msg_namelen, message.msg_controllen);
    message.msg_iovlen = 0;
    SHOW(recvmsg(fd, &message, 0));
    socklen_t len = sizeof from;
    SHOW(recvfrom(fd, c, 3, 0, (struct sockaddr *)&from, &len));
    note("name %u", len);
    SHOW(recvfrom(fd, c, 4, 0, NULL, NULL));
    static struct iovec many[IOV_MAX + 1];
    for (int i = 0; i <= IOV_MAX; i++) many[i] = (struct iovec){c, 1};
    SHOW(readv(fd, many, IOV_MAX + 1));
    volatile int negative = -1;
    SHOW(readv(fd, many, negative));
    SHOW(readv(fd, many, 0));
    meet();
    meet();
    wait_for_bytes(fd, IOV_MAX);
    SHOW(readv(fd, many, IOV_MAX));
    meet();
    recv_filled(fd, 300000, 3);
    pong(fd);
}

void client(int fd) {
    static char bytes[300000];
    struct iovec parts[4] = {{"abc", 3}, {NULL, 0}, {"defghij", 7}, {"klmnop", 6}};
    SHOW(writev(fd, parts, 4));
    meet();
    /* Read, all of it. */
    meet();
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    SHOW(sendmsg(fd, &message, MSG_NOSIGNAL));
    message.msg_iovlen = 0;
    SHOW(sendmsg(fd, &message, 0));
    SHOW(sendto(fd, "", 0, 0, NULL, 0));
    SHOW(write(fd, "", 0));
    meet();
    meet();
    static struct iovec many[IOV_MAX + 1];
    for (int i = 0; i <= IOV_MAX; i++) many[i] = (struct iovec){"x", 1};
    SHOW(writev(fd, many, IOV_MAX + 1));
    SHOW(writev(fd, many, IOV_MAX));
    meet();
    meet();
    fill(bytes, sizeof bytes, 3);
    struct iovec thirds[3] = {{bytes, 100000}, {bytes + 100000, 100000}, {bytes + 200000, 100000}};
    SHOW(writev(fd, thirds, 3));
    ping(fd, "after all");
}
