#include "case.h"

/* close_range and closefrom close connections as close does; the shim's own descriptors do not bother the program. */
void serve(int listener) {
    for (int i = 0; i < 4; i++) {
        int fd = accept_from(listener);
        warm_up(fd, true);
        pong(fd);
        if (i == 0) SHOW(close_range(fd, fd, 0));
        else if (i == 1) SHOW(close_range(fd, ~0U, CLOSE_RANGE_CLOEXEC));
        else if (i == 2) closefrom(fd);
        if (i == 1) {
            SHOW(fcntl(fd, F_GETFD));
            pong(fd);
            SHOW(close(fd));
        } else if (i < 3) {
            SHOW(fcntl(fd, F_GETFD));
        } else {
            for (int number = 3; number < 1024; number++) close(number);
        }
        meet();
    }
    int fd = open("/dev/null", O_RDONLY);
    SHOW(fd);
    char byte;
    SHOW(read(fd, &byte, 1));
}

void connect_and_run(uint16_t port) {
    char byte;
    for (int i = 0; i < 4; i++) {
        int fd = connect_to(port);
        warm_up(fd, false);
        ping(fd, "before");
        if (i == 1) ping(fd, "closed on exec only");
        SHOW(recv(fd, &byte, 1, 0));
        meet();
        SHOW(close(fd));
    }
}
