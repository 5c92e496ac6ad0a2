#include "case.h"

/* The classic: accept, fork, the child serves, the parent goes on accepting. */
enum { CONNECTIONS = 20 };

void serve(int listener) {
    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = accept_from(listener);
        if (fork() == 0) {
            close(listener);
            take_over();
            warm_up(fd, true);
            recv_filled(fd, 100000, i);
            send_filled(fd, 100000, i + 1);
            _exit(0);
        }
        close(fd);
        int status;
        EXPECT(wait(&status) > 0 && status == 0);
    }
}

void connect_and_run(uint16_t port) {
    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = connect_to(port);
        warm_up(fd, false);
        send_filled(fd, 100000, i);
        recv_filled(fd, 100000, i + 1);
        char byte;
        SHOW(recv(fd, &byte, 1, 0));
        SHOW(close(fd));
    }
}
