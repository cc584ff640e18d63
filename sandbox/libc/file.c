/* File descriptors: 1 and 2 are the console; there are no files. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "console.h"

ssize_t write(int descriptor, const void *data, size_t size)
{
    u64 flags;

    if (descriptor != STDOUT_FILENO && descriptor != STDERR_FILENO) {
        errno = EBADF;
        return -1;
    }
    if (size > SSIZE_MAX) {
        errno = EINVAL;
        return -1;
    }
    flags = lock_console();
    serial_write(data, size);
    unlock_console(flags);
    return (ssize_t)size;
}

ssize_t read(int descriptor, void *data, size_t size)
{
    (void)descriptor, (void)data, (void)size;
    errno = EBADF;
    return -1;
}

int open(const char *path, int flags, ...)
{
    (void)path, (void)flags;
    errno = ENOENT;
    return -1;
}

int close(int descriptor)
{
    if (descriptor == STDOUT_FILENO || descriptor == STDERR_FILENO)
        return 0;
    errno = EBADF;
    return -1;
}
