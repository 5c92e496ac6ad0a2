/* What Rust cannot do yet: functions with a variable number of arguments, and the number of a FILE. Each of them goes on
 * to the one that takes the arguments otherwise, which is ours again. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

extern int __vdprintf_chk(int fd, int flag, const char *format, va_list arguments);

int smcd_dprintf(int fd, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int result = vdprintf(fd, format, arguments);
    va_end(arguments);
    return result;
}

int smcd_dprintf_chk(int fd, int flag, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int result = __vdprintf_chk(fd, flag, format, arguments);
    va_end(arguments);
    return result;
}

/* The arguments of execl and its kin, up to the null that ends them. */
static size_t count(va_list arguments) {
    size_t n = 1;
    while (va_arg(arguments, char *)) n++;
    return n;
}

static void collect(char **all, const char *first, size_t n, va_list arguments) {
    all[0] = (char *)first;
    for (size_t i = 1; i <= n; i++) all[i] = va_arg(arguments, char *);
}

/* `first` may be the null already. */
#define WITH_ARGUMENTS(call)                   \
    va_list arguments;                         \
    size_t n = 0;                              \
    if (first) {                               \
        va_start(arguments, first);            \
        n = count(arguments);                  \
        va_end(arguments);                     \
    }                                          \
    char *all[n + 1];                          \
    va_start(arguments, first);                \
    collect(all, first, n, arguments);         \
    int result = call;                         \
    va_end(arguments);                         \
    return result

int smcd_execl(const char *path, const char *first, ...) { WITH_ARGUMENTS(execv(path, all)); }

int smcd_execlp(const char *file, const char *first, ...) { WITH_ARGUMENTS(execvp(file, all)); }

/* The environment comes after the null. */
int smcd_execle(const char *path, const char *first, ...) {
    WITH_ARGUMENTS(execve(path, all, va_arg(arguments, char **)));
}

/* What `fileno` is to say of a stream of `fopencookie`, which has no number of its own. */
void smcd_set_number(FILE *file, int fd) {
    file->_fileno = fd;
}
