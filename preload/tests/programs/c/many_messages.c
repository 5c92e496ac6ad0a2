#include "case.h"

/* recvmmsg and sendmmsg. */
enum { COUNT = 5 };

static void prepare(struct mmsghdr *messages, struct iovec *parts, char (*texts)[8]) {
    memset(messages, 0, COUNT * sizeof *messages);
    for (int i = 0; i < COUNT; i++) {
        parts[i] = (struct iovec){texts[i], sizeof texts[i]};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
}

void server(int fd) {
    struct mmsghdr messages[COUNT];
    struct iovec parts[COUNT];
    char texts[COUNT][8];
    prepare(messages, parts, texts);
    SHOW(recvmmsg(fd, messages, COUNT, MSG_DONTWAIT, NULL));
    meet();
    wait_for_bytes(fd, 36);
    SHOW(recvmmsg(fd, messages, COUNT, 0, NULL));
    for (int i = 0; i < COUNT; i++) note_bytes(texts[i], messages[i].msg_len);
    meet();
    wait_readable(fd);
    SHOW(recvmmsg(fd, messages, COUNT, MSG_WAITFORONE, NULL));
    note_bytes(texts[0], messages[0].msg_len);
    meet();
    SHOW(recvmmsg(fd, messages, 0, 0, NULL));
}

void client(int fd) {
    struct mmsghdr messages[COUNT];
    struct iovec parts[COUNT];
    char texts[COUNT][8];
    prepare(messages, parts, texts);
    for (int i = 0; i < COUNT; i++) memset(texts[i], 'a' + i, sizeof texts[i]);
    parts[4].iov_len = 4;
    meet();
    SHOW(sendmmsg(fd, messages, COUNT, 0));
    for (int i = 0; i < COUNT; i++) note("sent %u", messages[i].msg_len);
    meet();
    SHOW(sendmmsg(fd, messages, 1, MSG_NOSIGNAL));
    meet();
}
