/*
 * The ranges that mmap has given out, ascending, in a table that grows by doubling.
 *
 *   __mmap_base                                                         + half of HEAP_SLOT
 *   |  mapping  |page| mapping |page|   free   |page|  mapping  |  free ...
 *
 * A new mapping goes to the first place where a page that is never mapped fits on both sides. The table's pages
 * are the page allocator's too, and go back to it with the last mapping.
 */
#include "mappings.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "heap.h"

extern char __mmap_base[];
static char *const volatile base = __mmap_base;

static struct mapping *mappings;
static size_t count;
static unsigned int order;                  /* the table has 2^order pages, when there is one */

static size_t room(void)
{
    return mappings != NULL ? ((size_t)PAGE_SIZE << order) / sizeof(struct mapping) : 0;
}

/* Make room for one more. */
static bool extend_table(void)
{
    unsigned int larger = mappings != NULL ? order + 1 : 0;
    struct mapping *table;

    if (count < room())
        return true;
    table = get_free_pages(larger);
    if (table == NULL)
        return false;
    if (mappings != NULL) {
        memcpy(table, mappings, count * sizeof(*table));
        free_pages(mappings, order);
    }
    mappings = table;
    order = larger;
    return true;
}

/* Give the table back when nothing is in it. */
static void shrink_table(void)
{
    if (count == 0) {
        free_pages(mappings, order);
        mappings = NULL;
    }
}

/* Put a mapping at an index; there is room. */
static void insert(size_t index, char *start, char *end)
{
    memmove(mappings + index + 1, mappings + index, (count - index) * sizeof(*mappings));
    mappings[index] = (struct mapping){ start, end };
    count++;
}

static void erase(size_t index)
{
    count--;
    memmove(mappings + index, mappings + index + 1, (count - index) * sizeof(*mappings));
}

/* The first mapping that ends behind an address; count when there is none. */
static size_t first_behind(const char *address)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (mappings[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Find a place for length bytes, whole pages, and write it down. NULL with ENOMEM when there is none. */
char *__mapping_reserve(size_t length)
{
    char *start = base;
    size_t index;

    if (length < HEAP_SLOT / 2 && extend_table()) {
        for (index = 0; index < count; index++) {
            if (mappings[index].start >= start + length + PAGE_SIZE)
                break;
            start = mappings[index].end + PAGE_SIZE;
        }
        if (start + length < base + HEAP_SLOT / 2) {
            insert(index, start, start + length);
            return start;
        }
    }
    if (mappings != NULL)
        shrink_table();
    errno = ENOMEM;
    return NULL;
}

/* What was reserved is not needed: no page of it is mapped. */
void __mapping_forget(const char *start)
{
    erase(first_behind(start));
    shrink_table();
}

/* Unmap every mapping from start to end, or its part there. -1 with ENOMEM when there is no room for two parts. */
int __mapping_cut(char *start, char *end)
{
    size_t index = first_behind(start);

    if (index == count)
        return 0;
    if (mappings[index].start < start && mappings[index].end > end) {       /* one becomes two */
        if (!extend_table()) {
            errno = ENOMEM;
            return -1;
        }
        insert(index + 1, end, mappings[index].end);
        mappings[index].end = end;
    }
    while (index < count && mappings[index].start < end) {
        struct mapping *mapping = mappings + index;
        char *first = mapping->start > start ? mapping->start : start;
        char *last = mapping->end < end ? mapping->end : end;

        __heap_unmap(first, last);
        if (mapping->start < first)
            mapping->end = first;
        else
            mapping->start = last;
        if (mapping->start == mapping->end)
            erase(index);
        else
            index++;
    }
    shrink_table();
    return 0;
}

/* Let the mapping that ends at end go on for more bytes. -1 when something is in the way. */
int __mapping_grow(char *end, size_t more)
{
    size_t index = first_behind(end - PAGE_SIZE);
    char *next = index + 1 < count ? mappings[index + 1].start : base + HEAP_SLOT / 2;

    if (index == count || mappings[index].end != end || (ptrdiff_t)more > next - PAGE_SIZE - end)
        return -1;
    mappings[index].end += more;
    return 0;
}

/* Whether every page from start to end belongs to some mapping. */
int __mapping_covers(const char *start, const char *end)
{
    for (size_t index = first_behind(start); start < end; index++) {
        if (index == count || mappings[index].start > start)
            return 0;
        start = mappings[index].end;
    }
    return 1;
}
