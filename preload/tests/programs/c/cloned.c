#include "case.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* clone past fork: sharing descriptors but not memory, sharing neither, and by the bare system call. */
enum { STACK = 1 << 18 };

static int answer(void *fd) {
    pong(*(int *)fd);
    return 5;
}

static int close_it(void *fd) {
    pong(*(int *)fd);
    return close(*(int *)fd);
}

static void in_clone(int (*work)(void *), int flags, int fd) {
    char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    pid_t child = clone(work, stack + STACK, flags | SIGCHLD, &fd);
    EXPECT(child > 0);
    note_child("clone", child);
}

void server(int fd) {
    in_clone(answer, 0, fd);
    pong(fd);
    pid_t child = syscall(SYS_fork);
    if (child == 0) {
        pong(fd);
        _exit(6);
    }
    note_child("fork by number", child);
    pong(fd);
    in_clone(answer, CLONE_FILES, fd);
    pong(fd);
    /* It closes it for both. */
    in_clone(close_it, CLONE_FILES, fd);
    SHOW(fcntl(fd, F_GETFD));
}

void client(int fd) {
    for (int i = 0; i < 7; i++) ping(fd, "clone");
    char byte;
    SHOW(recv(fd, &byte, 1, 0));
}
