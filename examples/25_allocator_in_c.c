// Your own allocator in C: a header in front of each chunk, and `sandbox check 25` tells what it is worth.
//   | size, used | memory ... | size, used | memory ... |
// The list of every malloc lab: walk from header to header; free neighbours become one chunk. Beside lesson 20 it
// wastes less, and takes longer to find something. A main for `sandbox run 25` is in try_allocator.h.
#include "try_allocator.h"

struct chunk {
    size_t size;                        // of its memory, a multiple of 16
    size_t used;
    char memory[];
};
static struct chunk *first, *end;
static struct chunk *behind(struct chunk *chunk) {
    return (struct chunk *)(chunk->memory + chunk->size);
}

void init(void *start, size_t size) {
    first = start;
    *first = (struct chunk){size - sizeof *first, false};
    end = behind(first);
}

void *allocate(size_t size) {
    for (struct chunk *chunk = first; chunk < end; chunk = behind(chunk)) {
        if (chunk->used || chunk->size < size)
            continue;
        size_t left = chunk->size - (size ? (size + 15) / 16 * 16 : 16);
        if (left > sizeof *chunk) {     // enough for a chunk of its own
            chunk->size -= left;
            *behind(chunk) = (struct chunk){left - sizeof *chunk, false};
        }
        chunk->used = true;
        return chunk->memory;
    }
    return NULL;
}

static void merge(struct chunk *chunk) {
    struct chunk *next = behind(chunk);
    if (!chunk->used && next < end && !next->used)
        chunk->size += sizeof *next + next->size;
}

void deallocate(void *pointer) {
    struct chunk *before = first, *chunk = first;
    for (; chunk < end && chunk->memory != pointer; chunk = behind(chunk))
        before = chunk;
    if (chunk < end && chunk->used) {
        chunk->used = false;
        merge(chunk);
        merge(before);
    } else
        refuse(pointer);
}

void stats(struct allocator_stats *out) {
    *out = (struct allocator_stats){0};
    for (struct chunk *chunk = first; chunk < end; chunk = behind(chunk))
        *(chunk->used ? &out->in_use : &out->free_bytes) += chunk->used ? 1 : chunk->size;
}
