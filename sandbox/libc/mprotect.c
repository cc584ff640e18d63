/*
 * Rights of pages that are mapped, and advice about them. A page that may be accessed keeps its frame and cannot
 * become one that may not: PROT_NONE fails there with ENOTSUP. The other way round, a page gets its first frame.
 */
#include <sys/mman.h>

#include <errno.h>
#include <string.h>

#include "heap.h"
#include "mappings.h"

static int check(const char *start, size_t length)
{
    const char *end = start + page_up(length);

    if (!is_page(start) || page_up(length) < length || end < start) {
        errno = EINVAL;
        return -1;
    }
    if (!__mapping_covers(start, end)) {
        errno = ENOMEM;
        return -1;
    }
    return 0;
}

/* ENOMEM half way leaves the pages in front as they were wanted, as POSIX allows. */
int mprotect(void *address, size_t length, int protection)
{
    char *start = address;
    u64 flags;

    if (check(start, length) != 0 || __heap_flags(protection, &flags) != 0)
        return -1;
    for (char *page = start; page < start + page_up(length); page += PAGE_SIZE) {
        u64 entry = __heap_entry(page);

        if (entry == 0) {
            if (__heap_map(page, page + PAGE_SIZE, flags) != 0)
                return -1;
        } else if (flags == NO_ACCESS) {
            errno = ENOTSUP;
            return -1;
        } else {
            unmap_page((u64)page);          /* the tables stay, so that mapping it again cannot fail */
            map_page((u64)page, entry & PTE_ADDRESS, flags);
        }
    }
    return 0;
}

/* MADV_DONTNEED makes the pages read as zero, as in Linux; all other advice changes nothing. */
int madvise(void *address, size_t length, int advice)
{
    char *start = address;

    if (check(start, length) != 0)
        return -1;
    if (advice != MADV_DONTNEED)
        return 0;
    for (char *page = start; page < start + page_up(length); page += PAGE_SIZE) {
        u64 entry = __heap_entry(page);

        if (entry != 0)
            memset((void *)(DIRECT_MAP + (entry & PTE_ADDRESS)), 0, PAGE_SIZE);
    }
    return 0;
}
