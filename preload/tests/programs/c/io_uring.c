/* cc: -luring */
#include "case.h"

#include <liburing.h>

/* Calls that are made in a ring of the kernel's, past every library, on both ends. */
static struct io_uring ring;

static int finish(void) {
    struct io_uring_cqe *done;
    EXPECT(io_uring_submit(&ring) == 1 && io_uring_wait_cqe(&ring, &done) == 0);
    int result = done->res;
    io_uring_cqe_seen(&ring, done);
    return result;
}

static int ring_send(int fd, const void *bytes, size_t len) {
    io_uring_prep_send(io_uring_get_sqe(&ring), fd, bytes, len, MSG_NOSIGNAL);
    return finish();
}

static int ring_recv(int fd, void *bytes, size_t len) {
    io_uring_prep_recv(io_uring_get_sqe(&ring), fd, bytes, len, MSG_WAITALL);
    return finish();
}

void serve(int listener) {
    char text[20];
    EXPECT(io_uring_queue_init(8, &ring, 0) == 0);
    int fd = accept_from(listener);
    warm_up(fd, true);
    for (int i = 0; i < 40; i++) {
        SHOW(ring_recv(fd, text, 10));
        note_bytes(text, 10);
        SHOW(ring_send(fd, text, 10));
    }
    for (int i = 0; i < 10; i++) pong(fd);
    recv_filled(fd, 500000, 2);
    SHOW(close(fd));
}

void connect_and_run(uint16_t port) {
    char text[20];
    EXPECT(io_uring_queue_init(8, &ring, 0) == 0);
    int fd = connect_to(port);
    warm_up(fd, false);
    for (int i = 0; i < 40; i++) {
        SHOW(ring_send(fd, "0123456789", 10));
        SHOW(ring_recv(fd, text, 10));
        note_bytes(text, 10);
    }
    for (int i = 0; i < 10; i++) ping(fd, "by the usual calls");
    send_filled(fd, 500000, 2);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
