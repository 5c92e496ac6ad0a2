#include "case.h"

/* A signal during a call that waits: EINTR, or the call goes on, as the handler asked. */
static volatile sig_atomic_t handled;

static void handle(int signal) { handled++; }

static void on_alarm(int flags) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = flags};
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
}

static void alarm_soon(void) {
    struct itimerval soon = {.it_value = {0, 30000}};
    handled = 0;
    EXPECT(setitimer(ITIMER_REAL, &soon, NULL) == 0);
}

#define DURING(call) (alarm_soon(), SHOW(call), note("  signals: %d", (int)handled))

void server(int fd) {
    char text[20];
    struct pollfd poll_fd = {fd, POLLIN, 0};
    struct epoll_event event = {EPOLLIN, {.fd = fd}};
    int epoll = epoll_create1(0);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    fd_set set;
    on_alarm(0);
    DURING(recv(fd, text, sizeof text, 0));
    DURING(read(fd, text, sizeof text));
    DURING(poll(&poll_fd, 1, 10000));
    DURING(epoll_wait(epoll, &event, 1, 10000));
    FD_ZERO(&set);
    FD_SET(fd, &set);
    DURING(select(fd + 1, &set, NULL, NULL, NULL));
    on_alarm(SA_RESTART);
    DURING(poll(&poll_fd, 1, 10000));
    DURING(epoll_wait(epoll, &event, 1, 10000));
    meet();
    DURING(recv(fd, text, 5, 0));
    note_bytes(text, 5);
    meet();
    on_alarm(0);
    wait_for_bytes(fd, 3);
    DURING(recv(fd, text, 6, MSG_WAITALL));
    /* Blocked until the call is entered: ppoll lets it in. */
    sigset_t alarm_only, none;
    sigemptyset(&none);
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    EXPECT(sigprocmask(SIG_BLOCK, &alarm_only, NULL) == 0);
    alarm_soon();
    sleep_ms(50);
    struct timespec long_time = {10, 0};
    SHOW(ppoll(&poll_fd, 1, &long_time, &none));
    alarm_soon();
    sleep_ms(50);
    SHOW(epoll_pwait(epoll, &event, 1, 10000, &none));
    alarm_soon();
    sleep_ms(50);
    FD_ZERO(&set);
    FD_SET(fd, &set);
    SHOW(pselect(fd + 1, &set, NULL, NULL, &long_time, &none));
    note("signals: %d", (int)handled);
    meet();
    meet();
}

void client(int fd) {
    static char much[1 << 20];
    meet();
    sleep_ms(100);
    SHOW(send(fd, "later", 5, 0));
    meet();
    SHOW(send(fd, "123", 3, 0));
    meet();
    /* Nobody reads: it fills, and waits. */
    on_alarm(0);
    ssize_t n;
    do {
        alarm_soon();
        n = send(fd, much, sizeof much, 0);
    } while (n == sizeof much);
    SHOW(n == -1 || n > 0);
    DURING(send(fd, much, sizeof much, 0));
    meet();
}
