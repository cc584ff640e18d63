// A bump allocator: the next chunk lies behind the last one, and all of it is free again when nobody holds any.
//
//   start     first                      next            end
//   | starts  | chunk | chunk | chunk    | not yet given |
//   a bit for each 16 bytes: 1 where a chunk begins that somebody holds. So a double free and a wild one are seen.
#include <sandbox.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define GRAIN 16

static uint8_t *start, *first, *next, *end;
static size_t in_use;

// The bit of a chunk: turn it over, and tell what it was.
static bool toggle(const uint8_t *chunk) {
    size_t grain = (size_t)(chunk - start) / GRAIN;
    uint8_t mask = (uint8_t)(1u << grain % 8);
    start[grain / 8] ^= mask;
    return !(start[grain / 8] & mask);
}

void init(void *arena, size_t size) {
    size_t starts = size / GRAIN / 8;
    start = arena;
    end = start + size;
    first = start + (starts + GRAIN - 1) / GRAIN * GRAIN;
    next = first;
    in_use = 0;
    memset(start, 0, starts);
}

void *allocate(size_t size) {
    size_t left = (size_t)(end - next);         // a multiple of 16
    if (size > left)
        return NULL;
    if (size == 0)
        size = 1;
    size = (size + GRAIN - 1) / GRAIN * GRAIN;
    if (size > left)
        return NULL;
    uint8_t *chunk = next;
    next += size;
    in_use++;
    toggle(chunk);
    return chunk;
}

void deallocate(void *pointer) {
    uint8_t *chunk = pointer;
    if (chunk == NULL)
        return;
    if ((uintptr_t)chunk % GRAIN != 0 || chunk < first || chunk >= next || !toggle(chunk))
        panic("bump: nobody holds 0x%lx", (unsigned long)chunk);
    if (--in_use == 0)
        next = first;
}

void stats(struct allocator_stats *out) {
    out->in_use = in_use;
    out->free_bytes = (size_t)(end - next);
}
