/*
 * A close that fails as Linux's does: the descriptor is closed all the same (man 2 close), which
 * strace's injection can't show. Linked with --wrap=close; FAIL_CLOSE is "NUMBER ERRNO".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int __real_close(int fd);
int __wrap_close(int fd);

int __wrap_close(int fd) {
    static int calls;
    int number = 0, error = 0;
    const char *told = getenv("FAIL_CLOSE");
    if (__real_close(fd) < 0) return -1;
    if (told == NULL || sscanf(told, "%d %d", &number, &error) != 2 || ++calls != number) return 0;
    errno = error;
    return -1;
}
