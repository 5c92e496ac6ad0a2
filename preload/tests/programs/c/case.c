/* The frame around a case: the two processes, their transcripts, and how they wait for each other. */
#include "case.h"

#include <linux/futex.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Shared by both ends and all their descendants through a file that the test makes. It needs no descriptor and no
 * call that a preloaded library could want to see. */
struct control {
    atomic_uint port;
    atomic_uint met[2];
    atomic_int pid[2];
    struct transcript {
        atomic_uint used;
        char text[60000];
    } transcript[2];
};

enum { CLIENT, SERVER };

static struct control *control;
static int role;

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static void map_control(void) {
    int fd = open(variable("CASE_CONTROL"), O_RDWR);
    if (fd < 0) exit(101);
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED) exit(102);
    close(fd);
    role = strcmp(variable("CASE_ROLE"), "server") == 0 ? SERVER : CLIENT;
}

static void note_arguments(const char *prefix, const char *format, va_list arguments) {
    char line[1000];
    int start = snprintf(line, sizeof line, "%s", prefix);
    int len = start + vsnprintf(line + start, sizeof line - start - 1, format, arguments);
    if (len > (int)sizeof line - 2) len = sizeof line - 2;
    line[len++] = '\n';
    struct transcript *transcript = &control->transcript[role];
    unsigned at = atomic_fetch_add(&transcript->used, len);
    if (at + len <= sizeof transcript->text) memcpy(transcript->text + at, line, len);
}

void note(const char *format, ...) {
    int before = errno;
    va_list arguments;
    va_start(arguments, format);
    note_arguments("", format, arguments);
    va_end(arguments);
    errno = before;
}

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    note_arguments("FAILED: ", format, arguments);
    va_end(arguments);
    _exit(1);
}

long show(const char *call, long result) {
    int error = errno;
    if (result == -1) note("%s = -1 %s", call, strerrorname_np(error));
    else if (error == UNTOUCHED) note("%s = %ld", call, result);
    else note("%s = %ld, and errno was set to %s", call, result, strerrorname_np(error));
    errno = error;
    return result;
}

static uint64_t sum(const unsigned char *bytes, size_t len) {
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < len; i++) hash = (hash ^ bytes[i]) * 0x100000001b3;
    return hash;
}

void note_bytes(const void *bytes, size_t len) {
    const unsigned char *text = bytes;
    bool short_text = len <= 60;
    for (size_t i = 0; i < len && short_text; i++) short_text = text[i] >= ' ' && text[i] < 127;
    if (short_text) note("  %zu bytes: %.*s", len, (int)len, (const char *)text);
    else note("  %zu bytes, sum %016llx", len, (unsigned long long)sum(text, len));
}

struct flag {
    unsigned value;
    const char *name;
};

static void note_flags(const char *what, int result, unsigned set, const struct flag *flags) {
    char names[200] = "";
    for (; flags->name; flags++) {
        if (!(set & flags->value)) continue;
        strcat(names, " ");
        strcat(names, flags->name);
        set &= ~flags->value;
    }
    if (set) snprintf(names + strlen(names), 20, " %#x", set);
    if (result < 0) note("%s = -1 %s", what, strerrorname_np(errno));
    else note("%s = %d%s", what, result, result == 0 ? "" : names);
}

void note_poll(const char *what, int result, short events) {
    static const struct flag flags[] = {
        {POLLIN, "IN"},         {POLLPRI, "PRI"},       {POLLOUT, "OUT"},       {POLLERR, "ERR"},
        {POLLHUP, "HUP"},       {POLLNVAL, "NVAL"},     {POLLRDHUP, "RDHUP"},   {POLLRDNORM, "RDNORM"},
        {POLLRDBAND, "RDBAND"}, {POLLWRNORM, "WRNORM"}, {POLLWRBAND, "WRBAND"}, {0, NULL},
    };
    note_flags(what, result, (unsigned short)events, flags);
}

void note_epoll(const char *what, int result, const struct epoll_event *events) {
    static const struct flag flags[] = {
        {EPOLLIN, "IN"},   {EPOLLPRI, "PRI"},     {EPOLLOUT, "OUT"},       {EPOLLERR, "ERR"},
        {EPOLLHUP, "HUP"}, {EPOLLRDHUP, "RDHUP"}, {EPOLLRDNORM, "RDNORM"}, {EPOLLWRNORM, "WRNORM"},
        {0, NULL},
    };
    note_flags(what, result, result > 0 ? events[0].events : 0, flags);
    for (int i = 1; i < result; i++) note_flags("  and", result, events[i].events, flags);
}

/* So long an end waits for the other one before it gives up. */
static const struct timespec patience = {10, 0};

static void wait_for_change(atomic_uint *word, unsigned old) {
    long result = syscall(SYS_futex, word, FUTEX_WAIT, old, &patience, NULL, 0);
    if (result < 0 && errno == ETIMEDOUT) die("the other end does not come");
}

static void wake(atomic_uint *word) { syscall(SYS_futex, word, FUTEX_WAKE, 1000, NULL, NULL, 0); }

void meet(void) {
    unsigned mine = atomic_fetch_add(&control->met[role], 1) + 1;
    wake(&control->met[role]);
    atomic_uint *theirs = &control->met[!role];
    unsigned seen;
    while ((int)((seen = atomic_load(theirs)) - mine) < 0) wait_for_change(theirs, seen);
}

pid_t peer_pid(void) { return atomic_load(&control->pid[!role]); }

void take_over(void) { atomic_store(&control->pid[role], getpid()); }

void note_child(const char *who, pid_t child) {
    int status;
    pid_t ended;
    while ((ended = waitpid(child, &status, 0)) < 0 && errno == EINTR) {}
    EXPECT(ended == child);
    if (WIFEXITED(status)) note("%s exits %d", who, WEXITSTATUS(status));
    else note("%s is killed by %s", who, sigabbrev_np(WTERMSIG(status)));
}

bool is_warm(void) { return strcmp(variable("CASE_WARM"), "yes") == 0; }

/* True if the trace says that this process has promoted a connection, or if it is not to do so. */
static bool is_promoted(pid_t pid) {
    if (strcmp(variable("CASE_PROMOTES"), "yes") != 0) return true;
    FILE *trace = fopen(variable("CASE_TRACE"), "re");
    if (!trace) return false;
    char line[500];
    bool found = false;
    while (!found && fgets(line, sizeof line, trace)) {
        int of, len = 0;
        found = sscanf(line, "smcd: %d %*d promoted%n", &of, &len) == 1 && len && of == pid;
    }
    fclose(trace);
    return found;
}

/* As the policy "256K:24" has it, and some more for the switch of each direction. */
enum { MESSAGES = 64, MOST_MESSAGES = 5000, AFTER = 16 };

static bool is_enough(int messages) {
    if (messages < MESSAGES) return false;
    if (is_promoted(getpid()) && is_promoted(peer_pid())) return true;
    sleep_ms(1);
    return false;
}

static void warm_up_client(int fd) {
    char go = 'w', end = 'e', got;
    for (int messages = 0; !is_enough(messages); messages++) {
        if (messages == MOST_MESSAGES) die("not promoted");
        send_all(fd, &go, 1);
        recv_all(fd, &got, 1);
    }
    for (int i = 0; i < AFTER; i++) {
        send_all(fd, i == AFTER - 1 ? &end : &go, 1);
        recv_all(fd, &got, 1);
    }
}

static void warm_up_server(int fd) {
    char got = 'w';
    while (got != 'e') {
        recv_all(fd, &got, 1);
        send_all(fd, &got, 1);
    }
}

void warm_up(int fd, bool is_server) {
    if (!is_warm()) return;
    if (is_server) warm_up_server(fd);
    else warm_up_client(fd);
}

void fill(void *bytes, size_t len, uint64_t from) {
    unsigned char *byte = bytes;
    for (size_t i = 0; i < len; i++) byte[i] = (from + i) * 0x9e3779b97f4a7c15 >> 56;
}

void expect_filled(const void *bytes, size_t len, uint64_t from) {
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < len; i++) {
        if (byte[i] != (unsigned char)((from + i) * 0x9e3779b97f4a7c15 >> 56))
            die("byte %llu is wrong", (unsigned long long)(from + i));
    }
}

void send_all(int fd, const void *bytes, size_t len) {
    for (size_t done = 0; done < len;) {
        ssize_t n = send(fd, (const char *)bytes + done, len - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) die("send of %zu bytes gives %zd %s", len, n, strerrorname_np(errno));
        done += n;
    }
}

void recv_all(int fd, void *bytes, size_t len) {
    for (size_t done = 0; done < len;) {
        ssize_t n = recv(fd, (char *)bytes + done, len - done, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) die("recv of %zu bytes gives %zd %s", len, n, n < 0 ? strerrorname_np(errno) : "");
        done += n;
    }
}

enum { PIECE = 50000 };

void send_filled(int fd, size_t len, uint64_t from) {
    char piece[PIECE];
    for (size_t done = 0; done < len;) {
        size_t n = len - done < PIECE ? len - done : PIECE;
        fill(piece, n, from + done);
        send_all(fd, piece, n);
        done += n;
    }
}

void recv_filled(int fd, size_t len, uint64_t from) {
    char piece[PIECE];
    for (size_t done = 0; done < len;) {
        size_t n = len - done < PIECE ? len - done : PIECE;
        recv_all(fd, piece, n);
        expect_filled(piece, n, from + done);
        done += n;
    }
    note("received %zu bytes as they were sent", len);
}

void ping(int fd, const char *text) {
    char line[200], answer[200];
    size_t len = strlen(text);
    /* In one piece, for the other end to see all of it or nothing. */
    snprintf(line, sizeof line, "%s\n", text);
    send_all(fd, line, len + 1);
    recv_all(fd, answer, len);
    note("ping: %.*s", (int)len, answer);
}

void pong(int fd) {
    char text[200];
    size_t len = 0;
    for (; len < sizeof text; len++) {
        recv_all(fd, text + len, 1);
        if (text[len] == '\n') break;
    }
    note("pong: %.*s", (int)len, text);
    send_all(fd, text, len);
}

void wait_readable(int fd) {
    struct pollfd poll_fd = {fd, POLLIN, 0};
    EXPECT(poll(&poll_fd, 1, 10000) == 1);
}

void wait_for_bytes(int fd, int count) {
    for (int i = 0, there = 0; there < count; i++) {
        EXPECT(ioctl(fd, FIONREAD, &there) == 0);
        if (i == 10000) die("%d bytes in place of %d", there, count);
        if (there < count) sleep_ms(1);
    }
}

void sleep_ms(unsigned ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&time, &time) < 0) {}
}

void set_nonblocking(int fd, bool on) {
    int flags = fcntl(fd, F_GETFL);
    EXPECT(flags >= 0 && fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) == 0);
}

void set_int(int fd, int level, int option, int value) {
    EXPECT(setsockopt(fd, level, option, &value, sizeof value) == 0);
}

int listen_on_loopback(uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(listener >= 0 && bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 100) == 0);
    EXPECT(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
    *port = ntohs(address.sin_port);
    return listener;
}

int connect_to(uint16_t port) {
    struct sockaddr_in address = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

int accept_from(int listener) {
    int fd;
    while ((fd = accept(listener, NULL, NULL)) < 0 && errno == EINTR) {}
    EXPECT(fd >= 0);
    return fd;
}

__attribute__((weak)) void serve(int listener) {
    int fd = accept_from(listener);
    EXPECT(close(listener) == 0);
    warm_up(fd, true);
    server(fd);
}

__attribute__((weak)) void connect_and_run(uint16_t port) {
    int fd = connect_to(port);
    warm_up(fd, false);
    client(fd);
}

/* For cases that define serve() or connect_and_run(). */
__attribute__((weak)) void server(int fd) { die("no server for descriptor %d", fd); }
__attribute__((weak)) void client(int fd) { die("no client for descriptor %d", fd); }
__attribute__((weak)) void executed(int argc, char **argv) { die("executed with %d, %s", argc, argv[0]); }

/* A message of one byte, with room for a descriptor beside it. */
struct handover {
    char byte;
    struct iovec part;
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
};

static struct msghdr message_of(struct handover *handover) {
    handover->part = (struct iovec){&handover->byte, 1};
    return (struct msghdr){
        .msg_iov = &handover->part,
        .msg_iovlen = 1,
        .msg_control = &handover->control,
        .msg_controllen = sizeof handover->control,
    };
}

void hand_over(int channel, int fd) {
    struct handover handover = {.byte = 'x'};
    struct msghdr message = message_of(&handover);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    EXPECT(sendmsg(channel, &message, 0) == 1);
}

int take_handed(int channel) {
    struct handover handover = {.byte = 0};
    struct msghdr message = message_of(&handover);
    EXPECT(recvmsg(channel, &message, 0) == 1);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    EXPECT(head && head->cmsg_type == SCM_RIGHTS);
    int fd;
    memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

void again(const char *argument, int fd) {
    char number[20];
    snprintf(number, sizeof number, "%d", fd);
    execl("/proc/self/exe", "again", argument, number, (char *)NULL);
    die("exec: %s", strerrorname_np(errno));
}

static void run_server(void) {
    uint16_t port;
    int listener = listen_on_loopback(&port);
    atomic_store(&control->port, port);
    wake(&control->port);
    serve(listener);
}

static void run_client(void) {
    unsigned port;
    while ((port = atomic_load(&control->port)) == 0) wait_for_change(&control->port, 0);
    connect_and_run(port);
}

int main(int argc, char **argv) {
    map_control();
    if (strcmp(argv[0], "again") == 0) {
        executed(argc, argv);
    } else {
        take_over();
        if (role == SERVER) run_server();
        else run_client();
    }
    note("end");
    return 0;
}
