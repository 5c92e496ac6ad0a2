#include "case.h"

#include <sys/sendfile.h>

/* sendfile to a connection, with and without an offset; splice from and to it; sendfile and tee where they cannot. */
enum { BYTES = 2000000 };

static int file_with_pattern(void) {
    static char bytes[BYTES];
    int file = open("pattern", O_RDWR | O_CREAT | O_TRUNC, 0600);
    fill(bytes, BYTES, 0);
    EXPECT(file >= 0 && write(file, bytes, BYTES) == BYTES && lseek(file, 0, SEEK_SET) == 0);
    return file;
}

static void by_sendfile(int fd, int file) {
    off_t offset = 1000;
    size_t done = 1000;
    while (done < BYTES) {
        ssize_t n = sendfile(fd, file, &offset, BYTES - done);
        EXPECT(n > 0);
        done += n;
        EXPECT(offset == (off_t)done);
    }
    SHOW(lseek(file, 0, SEEK_CUR));
    SHOW(sendfile(fd, file, NULL, 1000));
    SHOW(lseek(file, 0, SEEK_CUR));
    offset = BYTES;
    SHOW(sendfile(fd, file, &offset, 10));
    SHOW(sendfile(fd, file, NULL, 0));
    SHOW(sendfile(file, fd, NULL, 10));
}

static size_t splice_all(int from, int to, int pipe_in, int pipe_out, size_t len) {
    size_t done = 0;
    while (done < len) {
        ssize_t n = splice(from, NULL, pipe_in, NULL, len - done < 60000 ? len - done : 60000, SPLICE_F_MOVE);
        EXPECT(n > 0);
        for (ssize_t moved = 0; moved < n;) {
            ssize_t m = splice(pipe_out, NULL, to, NULL, n - moved, SPLICE_F_MORE);
            EXPECT(m > 0);
            moved += m;
        }
        done += n;
    }
    return done;
}

void server(int fd) {
    int file = file_with_pattern(), ends[2];
    EXPECT(pipe(ends) == 0);
    by_sendfile(fd, file);
    meet();
    EXPECT(lseek(file, 0, SEEK_SET) == 0);
    SHOW(splice_all(file, fd, ends[1], ends[0], BYTES));
    meet();
    set_nonblocking(fd, true);
    SHOW(splice(fd, NULL, ends[1], NULL, 100, 0));
    set_nonblocking(fd, false);
    off_t offset = 0;
    SHOW(splice(fd, &offset, ends[1], NULL, 100, 0));
    SHOW(splice(fd, NULL, file, NULL, 100, 0));
    meet();
    int copy = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0600);
    SHOW(splice_all(fd, copy, ends[1], ends[0], BYTES));
    static char bytes[BYTES];
    EXPECT(pread(copy, bytes, BYTES, 0) == BYTES);
    expect_filled(bytes, BYTES, 7);
    meet();
    SHOW(splice(fd, NULL, ends[1], NULL, 100, 0));
}

void client(int fd) {
    recv_filled(fd, BYTES - 1000, 1000);
    recv_filled(fd, 1000, 0);
    meet();
    recv_filled(fd, BYTES, 0);
    meet();
    meet();
    send_filled(fd, BYTES, 7);
    meet();
    SHOW(shutdown(fd, SHUT_WR));
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
