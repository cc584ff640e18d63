/* Anonymous, private mappings: pages that read as zero at an address of our choice, unmapped ones around them. */
#include <sys/mman.h>

#include <errno.h>

#include "heap.h"
#include "mappings.h"

#define HARMLESS (MAP_NORESERVE | MAP_POPULATE | MAP_STACK)

static int check(size_t length, int flags, off_t offset)
{
    if (length == 0 || (flags & ~HARMLESS & ~MAP_ANONYMOUS) != MAP_PRIVATE || offset % PAGE_SIZE != 0)
        return EINVAL;
    if ((flags & MAP_ANONYMOUS) == 0)
        return ENODEV;
    if (page_up(length) < length)
        return ENOMEM;
    return 0;
}

void *mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset)
{
    int error = check(length, flags, offset);
    u64 page_flags;
    char *start;

    (void)address, (void)descriptor;
    if (error != 0) {
        errno = error;
        return MAP_FAILED;
    }
    if (__heap_flags(protection, &page_flags) != 0)
        return MAP_FAILED;
    length = page_up(length);
    start = __mapping_reserve(length);
    if (start == NULL)
        return MAP_FAILED;
    if (__heap_map(start, start + length, page_flags) != 0) {
        __mapping_forget(start);
        return MAP_FAILED;
    }
    return start;
}

/* What is not mapped there stays so; that is no error. */
int munmap(void *address, size_t length)
{
    char *start = address;

    if (!is_page(start) || length == 0 || page_up(length) < length || page_up(length) > -(uintptr_t)start) {
        errno = EINVAL;
        return -1;
    }
    return __mapping_cut(start, start + page_up(length));
}
