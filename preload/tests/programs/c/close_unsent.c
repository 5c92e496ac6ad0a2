#include "case.h"

/* What was sent before close arrives, whether the sender waits (SO_LINGER), goes on, or ends. */
enum { BYTES = 3000000 };

void serve(int listener) {
    for (int i = 0; i < 3; i++) {
        int fd = accept_from(listener);
        warm_up(fd, true);
        meet();
        sleep_ms(20);
        recv_filled(fd, BYTES, i);
        char byte;
        SHOW(recv(fd, &byte, 1, 0));
        SHOW(close(fd));
    }
}

void connect_and_run(uint16_t port) {
    for (int i = 0; i < 3; i++) {
        int fd = connect_to(port);
        warm_up(fd, false);
        if (i == 0) {
            struct linger linger = {1, 10};
            EXPECT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
        }
        meet();
        send_filled(fd, BYTES, i);
        if (i < 2) SHOW(close(fd));
    }
}
