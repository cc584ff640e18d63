/*
 * The break: one range that grows and shrinks at its end.
 *
 *   __sbrk_base        top
 *   |<---- in use ---->|rest of the page|nothing is mapped ...
 */
#include <errno.h>
#include <unistd.h>

#include "heap.h"

extern char __sbrk_base[];
static char *const volatile base = __sbrk_base;
static char *top = __sbrk_base;

static char *page_behind(char *address)
{
    return (char *)page_up((size_t)address);
}

/* The old break, or (void *)-1 with ENOMEM, and the break stays. */
void *sbrk(intptr_t increment)
{
    char *old = top;
    char *new;

    if (increment > base + HEAP_SLOT / 2 - old || increment < base - old) {
        errno = ENOMEM;
        return (void *)-1;
    }
    new = old + increment;
    if (increment > 0 && __heap_map(page_behind(old), page_behind(new), READ_WRITE) != 0)
        return (void *)-1;
    if (increment < 0)
        __heap_unmap(page_behind(new), page_behind(old));
    top = new;
    return old;
}

int brk(void *address)
{
    return sbrk((char *)address - top) == (void *)-1 ? -1 : 0;
}
