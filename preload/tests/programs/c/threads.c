#include "case.h"

/* Several threads write to one socket, several read from it: every byte comes once. */
enum { THREADS = 4, EACH = 250000 };

static int connection;
static uint64_t counts[THREADS][256];

static void *write_some(void *number) {
    char piece[777];
    memset(piece, 'a' + (int)(intptr_t)number, sizeof piece);
    for (size_t left = EACH; left > 0;) {
        size_t n = left < sizeof piece ? left : sizeof piece;
        send_all(connection, piece, n);
        left -= n;
    }
    return NULL;
}

static void *read_some(void *number) {
    unsigned char piece[1000];
    uint64_t *count = counts[(intptr_t)number];
    ssize_t n;
    while ((n = recv(connection, piece, sizeof piece, 0)) > 0) {
        for (ssize_t i = 0; i < n; i++) count[piece[i]]++;
    }
    EXPECT(n == 0);
    return NULL;
}

static void in_threads(void *(*work)(void *)) {
    pthread_t threads[THREADS];
    for (intptr_t i = 0; i < THREADS; i++) EXPECT(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
}

static void note_counts(void) {
    for (int byte = 0; byte < 256; byte++) {
        uint64_t sum = 0;
        for (int i = 0; i < THREADS; i++) sum += counts[i][byte];
        if (sum) note("%llu times %c", (unsigned long long)sum, byte);
    }
}

void server(int fd) {
    connection = fd;
    in_threads(read_some);
    note_counts();
    in_threads(write_some);
    SHOW(shutdown(fd, SHUT_WR));
}

void client(int fd) {
    connection = fd;
    in_threads(write_some);
    SHOW(shutdown(fd, SHUT_WR));
    in_threads(read_some);
    note_counts();
}
