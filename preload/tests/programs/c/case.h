/* What every case has at hand. A case is one C file: it defines server() and client(), which get the two ends of a
 * connection, in two processes, and notes what it sees, line by line. The same program must note the same lines
 * whichever way the bytes travel. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The two ends. A case defines both. */
void server(int fd);
void client(int fd);

/* What else a case may define in place of the usual: one connection, opened by connect() and accept(). */
void serve(int listener);
void connect_and_run(uint16_t port);
/* Runs when the program was executed anew by itself, by again(). */
void executed(int argc, char **argv);

/* A line of the transcript. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A line that fails the test, and the end of this process. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Notes the call, what it returned, and errno: after a failure by name, after a success only if it was changed. */
#define SHOW(call) show(#call, (errno = UNTOUCHED, (long)(call)))
#define UNTOUCHED 4242
long show(const char *call, long result);

/* Fails the test unless so. */
#define EXPECT(condition) ((condition) ? (void)0 : die("%s:%d: not so: %s", __FILE__, __LINE__, #condition))

/* Notes the length of what is there, and the bytes themselves or a sum over them. */
void note_bytes(const void *bytes, size_t len);
/* Notes flags by their names. */
void note_poll(const char *what, int result, short events);
void note_epoll(const char *what, int result, const struct epoll_event *events);

/* Waits until the other end's process comes to its meet() too. Nothing of the connection is used for it. */
void meet(void);
/* Process of the other end. */
pid_t peer_pid(void);
/* From now on this process, a child, is the one that peer_pid() means. */
void take_over(void);
/* Waits for a child, and notes how it ended. */
void note_child(const char *who, pid_t child);

/* Sends and receives messages until the connection is worth a promotion and, where there is to be one, promoted. */
void warm_up(int fd, bool is_server);
/* False if the connection is used as it is fresh from connect() or accept(). */
bool is_warm(void);

/* Bytes without a short period. */
void fill(void *bytes, size_t len, uint64_t from);
void expect_filled(const void *bytes, size_t len, uint64_t from);
/* All of it, or the end of the test. Not noted, for how many calls it takes differs. */
void send_all(int fd, const void *bytes, size_t len);
void recv_all(int fd, void *bytes, size_t len);
/* So many bytes as fill() makes them. */
void send_filled(int fd, size_t len, uint64_t from);
void recv_filled(int fd, size_t len, uint64_t from);
/* A message there and back, started by the client; noted in one line. */
void ping(int fd, const char *text);
void pong(int fd);
/* Waits until there is something to read, without reading it. */
void wait_readable(int fd);
/* Waits until so many bytes can be read. */
void wait_for_bytes(int fd, int count);

void sleep_ms(unsigned ms);
void set_nonblocking(int fd, bool on);
void set_int(int fd, int level, int option, int value);
/* A connection more, as the first one was made. */
int listen_on_loopback(uint16_t *port);
int connect_to(uint16_t port);
int accept_from(int listener);
/* Hands a descriptor over through a unix socket, which stays open here; and takes the one that was handed over. */
void hand_over(int channel, int fd);
int take_handed(int channel);

/* Executes this program anew: executed() gets the arguments. */
_Noreturn void again(const char *argument, int fd);
