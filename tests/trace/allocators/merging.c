/*
 * One circular list of free blocks in order of address, as in The C Programming Language, section 8.7: a header in
 * front of each block, neighbours that are free are merged, a chunk is cut from the end of its block.
 *
 * With ON_BREAK it is malloc and its family, on sbrk; without, it has the arena that init is given.
 */
#include <stddef.h>
#include <string.h>

#ifdef ON_BREAK
#include <unistd.h>
#define allocate malloc
#define deallocate free
#define reallocate realloc
#define allocate_zeroed calloc
#endif

struct header {
    struct header *next;
    size_t units;                           /* of 16 bytes, this header among them */
};

static struct header base, *start;

void deallocate(void *chunk)
{
    struct header *block, *before;

    if (chunk == NULL)
        return;
    block = (struct header *)chunk - 1;
    for (before = start; !(block > before && block < before->next); before = before->next)
        if (before >= before->next && (block > before || block < before->next))
            break;
    if (block + block->units == before->next) {
        block->units += before->next->units;
        block->next = before->next->next;
    } else {
        block->next = before->next;
    }
    if (before + before->units == block) {
        before->units += block->units;
        before->next = block->next;
    } else {
        before->next = block;
    }
    start = before;
}

static void begin(void)
{
    base.next = start = &base;
    base.units = 0;
}

#ifdef ON_BREAK
#define LEAST 256                           /* units that are asked for at a time */

static struct header *more(size_t units)
{
    struct header *block;

    if (units < LEAST)
        units = LEAST;
    block = sbrk((intptr_t)(units * sizeof(*block)));
    if (block == (void *)-1)
        return NULL;
    block->units = units;
    deallocate(block + 1);
    return start;
}
#else
static struct header *more(size_t units)
{
    (void)units;
    return NULL;
}

void init(void *arena, size_t size)
{
    struct header *all = arena;

    begin();
    all->units = size / sizeof(*all);
    deallocate(all + 1);
}
#endif

void *allocate(size_t size)
{
    struct header *block, *before;
    size_t units = (size + sizeof(*block) - 1) / sizeof(*block) + 1;

    if (size > (size_t)1 << 30)
        return NULL;
    if (start == NULL)
        begin();
    before = start;
    for (block = before->next;; before = block, block = block->next) {
        if (block->units >= units) {
            if (block->units == units) {
                before->next = block->next;
            } else {
                block->units -= units;
                block += block->units;
                block->units = units;
            }
            start = before;
            return block + 1;
        }
        if (block == start && (block = more(units)) == NULL)
            return NULL;
    }
}

void *reallocate(void *chunk, size_t size)
{
    size_t room;
    void *moved;

    if (chunk == NULL)
        return allocate(size);
    room = (((struct header *)chunk)[-1].units - 1) * sizeof(struct header);
    if (size <= room)
        return chunk;
    moved = allocate(size);
    if (moved == NULL)
        return NULL;
    memcpy(moved, chunk, room);
    deallocate(chunk);
    return moved;
}

void *allocate_zeroed(size_t count, size_t size)
{
    void *chunk;
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    chunk = allocate(bytes);
    return chunk != NULL ? memset(chunk, 0, bytes) : NULL;
}
