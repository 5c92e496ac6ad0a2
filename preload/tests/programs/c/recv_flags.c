#include "case.h"

/* MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT and MSG_TRUNC, alone and together. */
void server(int fd) {
    char text[100] = "";
    SHOW(recv(fd, text, 10, MSG_DONTWAIT));
    SHOW(recv(fd, text, 10, MSG_DONTWAIT | MSG_PEEK));
    /* Not for a byte, but it waits for one. */
    SHOW(recv(fd, text, 0, MSG_DONTWAIT));
    meet();
    wait_for_bytes(fd, 12);
    SHOW(recv(fd, text, 0, 0));
    SHOW(recv(fd, text, 5, MSG_PEEK));
    note_bytes(text, 5);
    SHOW(recv(fd, text, sizeof text, MSG_PEEK));
    note_bytes(text, 12);
    SHOW(recv(fd, text, 3, 0));
    note_bytes(text, 3);
    SHOW(recv(fd, text, sizeof text, MSG_PEEK | MSG_DONTWAIT));
    note_bytes(text, 9);
    SHOW(recv(fd, NULL, 4, MSG_TRUNC));
    SHOW(recv(fd, text, 2, MSG_WAITALL));
    note_bytes(text, 2);
    SHOW(recv(fd, text, 100, MSG_WAITALL | MSG_DONTWAIT));
    note_bytes(text, 3);
    meet();
    SHOW(recv(fd, text, 26, MSG_WAITALL));
    note_bytes(text, 26);
    meet();
    SHOW(recv(fd, text, 20, MSG_WAITALL | MSG_PEEK));
    SHOW(recv(fd, text, sizeof text, MSG_WAITALL));
    note_bytes(text, 20);
    SHOW(recv(fd, text, sizeof text, MSG_WAITALL));
    SHOW(recv(fd, text, sizeof text, MSG_PEEK));
}

void client(int fd) {
    meet();
    SHOW(send(fd, "abcdefghijkl", 12, 0));
    meet();
    for (char c = 'a'; c <= 'z'; c++) {
        send_all(fd, &c, 1);
        if (c % 10 == 0) sleep_ms(5);
    }
    meet();
    SHOW(send(fd, "01234567890123456789", 20, 0));
    SHOW(shutdown(fd, SHUT_WR));
    char byte;
    EXPECT(recv(fd, &byte, 1, 0) <= 0);
}
