/* Error numbers in words, those of the GNU C library. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int number;
    const char *text;
} errors[] = {
    { 0, "Success" },
    { EPERM, "Operation not permitted" },
    { ENOENT, "No such file or directory" },
    { EINTR, "Interrupted system call" },
    { EIO, "Input/output error" },
    { E2BIG, "Argument list too long" },
    { EBADF, "Bad file descriptor" },
    { EAGAIN, "Resource temporarily unavailable" },
    { ENOMEM, "Cannot allocate memory" },
    { EACCES, "Permission denied" },
    { EFAULT, "Bad address" },
    { EBUSY, "Device or resource busy" },
    { EEXIST, "File exists" },
    { ENODEV, "No such device" },
    { EINVAL, "Invalid argument" },
    { EPIPE, "Broken pipe" },
    { EDOM, "Numerical argument out of domain" },
    { ERANGE, "Numerical result out of range" },
    { ENOSYS, "Function not implemented" },
    { EOVERFLOW, "Value too large for defined data type" },
    { EILSEQ, "Invalid or incomplete multibyte or wide character" },
    { ENOTSUP, "Operation not supported" },
    { ETIMEDOUT, "Connection timed out" },
};

char *strerror(int number)
{
    static char unknown[32];

    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        if (errors[i].number == number)
            return (char *)errors[i].text;
    snprintf(unknown, sizeof(unknown), "Unknown error %d", number);
    return unknown;
}
