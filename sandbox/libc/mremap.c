/* Another length for a mapping. Where it cannot grow, its frames move to another place; no byte is copied. */
#include <sys/mman.h>

#include <errno.h>

#include "heap.h"
#include "mappings.h"

/* Move the frames of length bytes, with their rights. -1 with ENOMEM, and all are where they were. */
static int move_pages(char *from, char *to, size_t length)
{
    for (size_t offset = 0; offset < length; offset += PAGE_SIZE) {
        u64 entry = __heap_entry(from + offset);

        if (entry == 0)
            continue;
        unmap_page((u64)from + offset);
        if (map_page((u64)to + offset, entry & PTE_ADDRESS, entry & READ_WRITE) != 0) {
            map_page((u64)from + offset, entry & PTE_ADDRESS, entry & READ_WRITE);
            move_pages(to, from, offset);
            errno = ENOMEM;
            return -1;
        }
    }
    return 0;
}

static void *move(char *start, size_t old_length, size_t new_length, u64 flags)
{
    char *to = __mapping_reserve(new_length);

    if (to == NULL)
        return MAP_FAILED;
    if (__heap_map(to + old_length, to + new_length, flags) != 0 || move_pages(start, to, old_length) != 0 ||
        __mapping_cut(start, start + old_length) != 0) {
        move_pages(to, start, old_length);
        __mapping_cut(to, to + new_length);
        return MAP_FAILED;
    }
    return to;
}

void *mremap(void *address, size_t old_length, size_t new_length, int flags, ...)
{
    char *start = address;
    char *end = start + page_up(old_length);
    u64 last;

    if (!is_page(start) || new_length == 0 || old_length == 0 || (flags & ~MREMAP_MAYMOVE) != 0 ||
        page_up(old_length) < old_length || page_up(new_length) < new_length) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    if (end < start || !__mapping_covers(start, end)) {
        errno = EFAULT;
        return MAP_FAILED;
    }
    old_length = page_up(old_length);
    new_length = page_up(new_length);
    if (new_length <= old_length)
        return new_length == old_length || __mapping_cut(start + new_length, end) == 0 ? start : MAP_FAILED;

    last = __heap_entry(end - PAGE_SIZE) & READ_WRITE;      /* new pages are as the last one is */
    if (__mapping_grow(end, new_length - old_length) == 0) {
        if (__heap_map(end, start + new_length, last) == 0)
            return start;
        __mapping_cut(end, start + new_length);
        return MAP_FAILED;
    }
    if ((flags & MREMAP_MAYMOVE) == 0) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return move(start, old_length, new_length, last);
}
