/* What a program can ask about the machine. */
#include <errno.h>
#include <unistd.h>

#include <sandbox.h>

int getpagesize(void)
{
    return PAGE_SIZE;
}

pid_t getpid(void)
{
    return 1;
}

long sysconf(int name)
{
    switch (name) {
    case _SC_PAGESIZE:
        return PAGE_SIZE;
    case _SC_NPROCESSORS_CONF:
    case _SC_NPROCESSORS_ONLN:
        return 1;
    case _SC_PHYS_PAGES:
        return (long)max_pfn;
    default:
        errno = EINVAL;
        return -1;
    }
}
