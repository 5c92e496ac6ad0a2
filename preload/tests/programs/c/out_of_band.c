#include "case.h"

#include <linux/sockios.h>

/* Urgent data: a byte beside the others, the mark, SIGURG, POLLPRI, and in line. */
static volatile sig_atomic_t urgent;

static void count(int signal) { urgent++; }

static void wait_urgent(int fd) {
    struct pollfd poll_fd = {fd, POLLPRI, 0};
    int found;
    /* The signal may come while it sleeps, or before. */
    while ((found = poll(&poll_fd, 1, 10000)) < 0 && errno == EINTR) {}
    note_poll("poll", found, poll_fd.revents);
}

void server(int fd) {
    char text[20];
    int at_mark = -1;
    EXPECT(signal(SIGURG, count) != SIG_ERR);
    SHOW(fcntl(fd, F_SETOWN, getpid()));
    SHOW(recv(fd, text, 1, MSG_OOB));
    meet();
    wait_urgent(fd);
    SHOW(urgent > 0);
    SHOW(recv(fd, text, 1, MSG_OOB | MSG_PEEK));
    SHOW(recv(fd, text, sizeof text, MSG_OOB));
    note_bytes(text, 1);
    SHOW(recv(fd, text, 1, MSG_OOB));
    wait_for_bytes(fd, 3);
    SHOW(recv(fd, text, sizeof text, 0));
    note_bytes(text, 3);
    SHOW(ioctl(fd, SIOCATMARK, &at_mark));
    SHOW(at_mark);
    meet();
    wait_readable(fd);
    SHOW(recv(fd, text, sizeof text, 0));
    note_bytes(text, 2);
    set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    meet();
    wait_urgent(fd);
    wait_for_bytes(fd, 3);
    SHOW(recv(fd, text, sizeof text, 0));
    note_bytes(text, 2);
    SHOW(ioctl(fd, SIOCATMARK, &at_mark));
    SHOW(at_mark);
    SHOW(recv(fd, text, sizeof text, 0));
    note_bytes(text, 1);
    meet();
    pong(fd);
}

void client(int fd) {
    meet();
    SHOW(send(fd, "abc", 3, 0));
    SHOW(send(fd, "U", 1, MSG_OOB));
    meet();
    SHOW(send(fd, "de", 2, 0));
    meet();
    SHOW(send(fd, "fgV", 3, MSG_OOB));
    meet();
    ping(fd, "after all");
}
