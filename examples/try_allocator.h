// A main for an allocator with the four functions init, allocate, deallocate and stats: include this file, and
// `sandbox run` shows what it does; and refuse, for deallocate to call. The check needs no main.
#include <sandbox.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARENA_ORDER 6                   // 64 pages, 256 KiB

void init(void *start, size_t size);
void *allocate(size_t size);
void deallocate(void *pointer);
void stats(struct allocator_stats *out);

// How deallocate answers a pointer that it never gave out, or that is free already: with a panic. NULL is no mistake.
static void refuse(void *pointer) {
    if (pointer != NULL)
        panic("deallocate: 0x%016lx is no chunk in use", (unsigned long)pointer);
}

static void show(void) {
    struct allocator_stats told;
    stats(&told);
    kprintf("in use: %lu, free bytes: %lu\n", told.in_use, told.free_bytes);
}

int main(void) {
    char *arena = get_free_pages(ARENA_ORDER);
    init(arena, PAGE_SIZE << ARENA_ORDER);
    show();

    // 1. Two allocations and their frees.
    char *one = allocate(100), *two = allocate(100);
    kprintf("allocate(100) gives the bytes from %lu and from %lu of the arena on\n", one - arena, two - arena);
    show();
    deallocate(one);
    deallocate(two);

    // 2. What was freed is used again.
    one = allocate(100);
    kprintf("freed both; allocate(100) gives the bytes from %lu on\n", one - arena);
    deallocate(one);
    show();
    free_pages(arena, ARENA_ORDER);
    return 0;
}
