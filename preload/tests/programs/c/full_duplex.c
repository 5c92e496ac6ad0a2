#include "case.h"

/* At each end a thread writes while another reads; more than all buffers hold. */
enum { BYTES = 20 << 20 };

static void *write_all(void *fd) {
    send_filled((int)(intptr_t)fd, BYTES, 3);
    return NULL;
}

static void exchange(int fd) {
    pthread_t writer;
    EXPECT(pthread_create(&writer, NULL, write_all, (void *)(intptr_t)fd) == 0);
    recv_filled(fd, BYTES, 3);
    EXPECT(pthread_join(writer, NULL) == 0);
    SHOW(shutdown(fd, SHUT_WR));
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}

void server(int fd) { exchange(fd); }
void client(int fd) { exchange(fd); }
