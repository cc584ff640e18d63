/*
 * Frames of the page allocator at virtual addresses of their own: what sbrk and mmap are made of.
 *
 *   __sbrk_base                      __mmap_base
 *   |pages ...      ->               |pages|gap|pages| ...
 *     |     |                          |     |    |
 *   frames of get_free_pages(0), zeroed; together at most __heap_limit bytes
 */
#include "heap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/*
 * The linker's number, 0 for no limit. Volatile, so that it is read from memory: no instruction of the kernel's code
 * model holds an address outside of the topmost 2 GiB.
 */
extern char __heap_limit[];
static char *const volatile limit = __heap_limit;

static size_t mapped;                       /* bytes that are mapped now */

/* Give a page its frame. */
static int map_frame(char *page, u64 flags)
{
    void *frame = get_free_pages(0);

    if (frame == NULL)
        return -1;
    memset(frame, 0, PAGE_SIZE);
    if (map_page((u64)page, (u64)frame - DIRECT_MAP, flags) != 0) {
        free_pages(frame, 0);
        return -1;
    }
    mapped += PAGE_SIZE;
    return 0;
}

/* Map zeroed pages from start to end. 0; or -1 with ENOMEM, and none is mapped. */
int __heap_map(char *start, char *end, u64 flags)
{
    char *page;

    if (flags == NO_ACCESS)
        return 0;
    if (limit != NULL && (size_t)(end - start) > (size_t)limit - mapped) {
        errno = ENOMEM;
        return -1;
    }
    for (page = start; page < end; page += PAGE_SIZE)
        if (map_frame(page, flags) != 0) {
            __heap_unmap(start, page);
            errno = ENOMEM;
            return -1;
        }
    return 0;
}

/* Unmap what is mapped between start and end, and give the frames back. */
void __heap_unmap(char *start, char *end)
{
    for (char *page = start; page < end; page += PAGE_SIZE) {
        u64 physical = unmap_page((u64)page);

        if ((s64)physical >= 0) {
            free_pages((void *)(DIRECT_MAP + physical), 0);
            mapped -= PAGE_SIZE;
        }
    }
}

/* The page-table entry of a page; 0 when it is not mapped. */
u64 __heap_entry(const char *page)
{
    u64 *entry = walk_page((u64)page);

    return entry != NULL ? *entry : 0;
}

/* PROT_* as the flags of map_page; -1 with ENOTSUP for what no page here may be: executable. */
int __heap_flags(int protection, u64 *flags)
{
    if ((protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) != 0) {
        errno = EINVAL;
        return -1;
    }
    if ((protection & PROT_EXEC) != 0) {
        errno = ENOTSUP;
        return -1;
    }
    if ((protection & PROT_WRITE) != 0)
        *flags = READ_WRITE;
    else
        *flags = (protection & PROT_READ) != 0 ? READ_ONLY : NO_ACCESS;
    return 0;
}
