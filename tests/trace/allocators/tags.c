/*
 * Boundary tags (Knuth, volume 1, section 2.5): a size in front of every block and behind it, with a bit for a block
 * that is in use; free blocks are on a list and merged with both neighbours; realloc grows forwards and backwards.
 * The memory is pages of the page allocator, mapped one behind the other; those of large chunks go back at once.
 *
 *   |used|size+bit ... size+bit|size+bit ... size+bit|used|
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox.h"

#define ROOM 0xffffcbf000000000ul
#define LARGE_ROOM 0xffffcbf800000000ul
#define LARGE 3000ul                        /* from here on a chunk has pages of its own */
#define LEAST 32ul
#define READ_WRITE (PTE_WRITE | PTE_NX)

struct links { u64 next, before; };         /* of a free block, behind its tag: addresses of blocks, 0 for none */

static u64 top = ROOM, large = LARGE_ROOM, first;

static u64 *tag(u64 block) { return (u64 *)block; }
static struct links *links(u64 block) { return (struct links *)(block + 8); }

static void put(u64 block)
{
    *links(block) = (struct links){ first, 0 };
    if (first != 0)
        links(first)->before = block;
    first = block;
}

static void take(u64 block)
{
    struct links *own = links(block);

    if (own->before != 0)
        links(own->before)->next = own->next;
    else
        first = own->next;
    if (own->next != 0)
        links(own->next)->before = own->before;
}

static void mark(u64 block, u64 size, u64 used)
{
    *tag(block) = *tag(block + size - 8) = size | used;
}

static int map(u64 at, u64 pages)
{
    for (u64 page = 0; page < pages; page++) {
        void *frame = get_free_pages(0);

        if (frame == NULL || map_page(at + page * PAGE_SIZE, (u64)frame - DIRECT_MAP, READ_WRITE) != 0)
            return -1;
    }
    return 0;
}

/* A page more at the end; the old end mark becomes the tag of what is new. */
static int more(void)
{
    u64 block = top == ROOM ? ROOM + 8 : top - 8;

    if (map(top, 1) != 0)
        return -1;
    if (top == ROOM)
        *tag(ROOM) = 1;
    top += PAGE_SIZE;
    *tag(top - 8) = 1;
    mark(block, top - 8 - block, 1);
    free((void *)(block + 8));
    return 0;
}

static u64 need(size_t size)
{
    u64 bytes = ((size + 15) & ~15ul) + 16;

    return bytes < LEAST ? LEAST : bytes;
}

/* A large chunk: pages of its own, its size in front. */
static void *large_chunk(size_t size)
{
    u64 at = large, pages = (size + 16 + PAGE_SIZE - 1) / PAGE_SIZE;

    large += (pages + 1) * PAGE_SIZE;
    if (map(at, pages) != 0)
        return NULL;
    ((u64 *)at)[0] = pages;
    ((u64 *)at)[1] = 0;
    return (void *)(at + 16);
}

static void free_large(u64 at)
{
    for (u64 pages = *(u64 *)at; pages-- != 0; at += PAGE_SIZE)
        free_pages((void *)(DIRECT_MAP + unmap_page(at)), 0);
}

void *malloc(size_t size)
{
    if (size > 1 << 20)
        return NULL;
    if (size >= LARGE)
        return large_chunk(size);
    for (;;) {
        for (u64 block = first; block != 0; block = links(block)->next) {
            u64 room = *tag(block), used = need(size);

            if (room < used)
                continue;
            take(block);
            if (room - used >= LEAST) {
                mark(block + used, room - used, 0);
                put(block + used);
                room = used;
            }
            mark(block, room, 1);
            return (void *)(block + 8);
        }
        if (more() != 0)
            return NULL;
    }
}

void free(void *chunk)
{
    u64 block = (u64)chunk - 8, size;

    if (chunk == NULL)
        return;
    if (block >= LARGE_ROOM) {
        free_large(block - 8);
        return;
    }
    size = *tag(block) & ~1ul;
    if ((*tag(block + size) & 1) == 0) {
        take(block + size);
        size += *tag(block + size);
    }
    if ((*tag(block - 8) & 1) == 0) {
        block -= *tag(block - 8);
        take(block);
        size += *tag(block);
    }
    mark(block, size, 0);
    put(block);
}

void *realloc(void *chunk, size_t size)
{
    u64 block = (u64)chunk - 8, room, wanted = need(size), before;
    void *moved;

    if (chunk == NULL)
        return malloc(size);
    if (size == 0) {
        free(chunk);
        return NULL;
    }
    room = block >= LARGE_ROOM ? *tag(block - 8) * PAGE_SIZE : *tag(block) & ~1ul;
    if (block < LARGE_ROOM && size < LARGE) {
        if (wanted <= room) {
            if (room - wanted >= LEAST) {
                mark(block, wanted, 1);
                mark(block + wanted, room - wanted, 1);
                free((void *)(block + wanted + 8));
            }
            return chunk;
        }
        if ((*tag(block + room) & 1) == 0 && room + *tag(block + room) >= wanted) {
            take(block + room);
            mark(block, room + *tag(block + room), 1);
            return chunk;
        }
        before = *tag(block - 8);
        if ((before & 1) == 0 && room + before >= wanted) {
            take(block - before);
            memmove((void *)(block - before + 8), chunk, room - 16);
            mark(block - before, room + before, 1);
            return (void *)(block - before + 8);
        }
    }
    moved = malloc(size);
    if (moved == NULL)
        return NULL;
    memcpy(moved, chunk, size < room - 16 ? size : room - 16);
    free(chunk);
    return moved;
}

void *calloc(size_t count, size_t size)
{
    size_t bytes;
    void *chunk;

    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    chunk = malloc(bytes);
    return chunk != NULL ? memset(chunk, 0, bytes) : NULL;
}

void *memalign(size_t alignment, size_t size)
{
    u64 chunk, block, skipped;

    if (size + alignment + LEAST >= LARGE || (alignment & (alignment - 1)) != 0)
        return NULL;
    chunk = (u64)malloc(size + alignment + LEAST);
    if (chunk == 0 || chunk % alignment == 0)
        return (void *)chunk;
    block = ((chunk + LEAST + alignment - 1) & ~(alignment - 1)) - 8;
    skipped = block - (chunk - 8);
    mark(block, (*tag(chunk - 8) & ~1ul) - skipped, 1);
    mark(chunk - 8, skipped, 1);
    free((void *)chunk);
    return (void *)(block + 8);
}
