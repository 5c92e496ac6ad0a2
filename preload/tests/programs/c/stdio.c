#include "case.h"

/* Streams of the C library on a connection, and dprintf. */
void server(int fd) {
    char line[200];
    FILE *in = fdopen(fd, "r");
    FILE *out = fdopen(dup(fd), "w");
    EXPECT(in && out);
    for (int i = 0; i < 40; i++) {
        EXPECT(fgets(line, sizeof line, in));
        fprintf(out, "line %d: %s", i, line);
        SHOW(fflush(out));
    }
    static char much[300000];
    SHOW(fread(much, 1, sizeof much, in));
    expect_filled(much, sizeof much, 3);
    SHOW(fwrite(much, 1, sizeof much, out));
    SHOW(fclose(out));
    SHOW(fgetc(in) == EOF && feof(in));
    SHOW(fclose(in));
}

void client(int fd) {
    FILE *both = fdopen(fd, "r+");
    char line[200];
    setlinebuf(both);
    for (int i = 0; i < 40; i++) {
        if (i % 2) SHOW(dprintf(fd, "by dprintf %d\n", i));
        else SHOW(fprintf(both, "by fprintf %d\n", i));
        EXPECT(fgets(line, sizeof line, both));
        note_bytes(line, strlen(line) - 1);
        fseek(both, 0, SEEK_CUR);
    }
    send_filled(fd, 300000, 3);
    static char much[300000];
    SHOW(fread(much, 1, sizeof much, both));
    expect_filled(much, sizeof much, 3);
    SHOW(shutdown(fd, SHUT_WR));
    SHOW(fclose(both));
}
