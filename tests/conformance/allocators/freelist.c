// A free list, as in xv6's kalloc.c: blocks of one size, and a link in the first word of each free one.
//
//   owners    first                                           end
//   | owners  | padding | block | block | block | ...         |
//   one byte for each block: 1 while somebody holds it. A free that finds 0 there is a double free, and one that is not
//   at a block's first byte is wild; xv6 has neither check.
#include <sandbox.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK 256

struct run {
    struct run *next;
};

static uint8_t *owners, *first;
static size_t blocks, unused;
static struct run *list;

// Put every block on the list, the last one first, so that the first is the first to be handed out.
void init(void *start, size_t size) {
    owners = start;
    first = (uint8_t *)(((uintptr_t)owners + size / BLOCK + BLOCK - 1) / BLOCK * BLOCK);
    blocks = (size_t)(owners + size - first) / BLOCK;
    unused = blocks;
    list = NULL;
    for (size_t number = blocks; number-- > 0;) {
        struct run *run = (struct run *)(first + number * BLOCK);
        run->next = list;
        list = run;
        owners[number] = 0;
    }
}

void *allocate(size_t size) {
    struct run *run = list;
    if (size > BLOCK || run == NULL)
        return NULL;
    list = run->next;
    unused--;
    owners[(size_t)((uint8_t *)run - first) / BLOCK] = 1;
    return run;
}

void deallocate(void *pointer) {
    if (pointer == NULL)
        return;
    uintptr_t offset = (uintptr_t)pointer - (uintptr_t)first;
    size_t number = offset / BLOCK;             // huge below the first
    if (offset % BLOCK != 0 || number >= blocks)
        panic("free list: 0x%lx is not a block", (unsigned long)pointer);
    if (owners[number] != 1)
        panic("free list: 0x%lx is free already", (unsigned long)pointer);
    owners[number] = 0;
    struct run *run = pointer;
    run->next = list;
    list = run;
    unused++;
}

void stats(struct allocator_stats *out) {
    out->in_use = blocks - unused;
    out->free_bytes = unused * BLOCK;
}
