#include "case.h"

#include <spawn.h>

/* posix_spawn and vfork beside a connection, and posix_spawn with the connection as a program's input and output. */
static void spawn_true(void) {
    pid_t child;
    char *arguments[] = {"true", NULL};
    EXPECT(posix_spawnp(&child, "true", NULL, NULL, arguments, environ) == 0);
    note_child("true", child);
}

static void vfork_true(void) {
    pid_t child = vfork();
    if (child == 0) {
        execlp("true", "true", (char *)NULL);
        _exit(9);
    }
    note_child("true", child);
}

static void vfork_closing(int fd) {
    pid_t child = vfork();
    if (child == 0) {
        /* The child's copy, not the parent's. */
        close(fd);
        _exit(4);
    }
    note_child("child", child);
}

static void spawn_cat(int fd) {
    pid_t child;
    char *arguments[] = {"cat", NULL};
    posix_spawn_file_actions_t actions;
    EXPECT(posix_spawn_file_actions_init(&actions) == 0);
    EXPECT(posix_spawn_file_actions_adddup2(&actions, fd, 0) == 0);
    EXPECT(posix_spawn_file_actions_adddup2(&actions, fd, 1) == 0);
    EXPECT(posix_spawn_file_actions_addclose(&actions, fd) == 0);
    EXPECT(posix_spawnp(&child, "cat", &actions, NULL, arguments, environ) == 0);
    EXPECT(posix_spawn_file_actions_destroy(&actions) == 0);
    SHOW(close(fd));
    note_child("cat", child);
}

void server(int fd) {
    pong(fd);
    spawn_true();
    pong(fd);
    vfork_true();
    pong(fd);
    vfork_closing(fd);
    pong(fd);
    SHOW(system("exit 3"));
    pong(fd);
    spawn_cat(fd);
}

void client(int fd) {
    for (int i = 0; i < 5; i++) ping(fd, "beside");
    send_filled(fd, 50000, 1);
    SHOW(shutdown(fd, SHUT_WR));
    recv_filled(fd, 50000, 1);
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
