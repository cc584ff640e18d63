/*
 * malloc on the allocator under test. It is asked for 16 bytes more, for what realloc and free want to know:
 *
 *   start                                            pointer
 *   |<- only for alignments beyond 16 ->|size |start |<- the caller's bytes ->|
 *
 * The allocator aligns to 16, and so do we.
 */
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <string.h>

#define ALIGNMENT 16

struct header {
    size_t size;                            /* bytes that the caller asked for */
    void *start;                            /* what the allocator gave */
};

/* The linker knows what they are called. */
void *__allocator_allocate(size_t size);
void __allocator_deallocate(void *pointer);

static struct header *header_of(void *pointer)
{
    return (struct header *)pointer - 1;
}

static void *allocate_aligned(size_t alignment, size_t size)
{
    size_t more = sizeof(struct header) + (alignment > ALIGNMENT ? alignment : 0);
    void *start = size <= SIZE_MAX - more ? __allocator_allocate(size + more) : NULL;
    uintptr_t pointer = (uintptr_t)start + sizeof(struct header);

    if (start == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    if (alignment > ALIGNMENT)
        pointer = (pointer + alignment - 1) & -alignment;
    *header_of((void *)pointer) = (struct header){ .size = size, .start = start };
    return (void *)pointer;
}

void *malloc(size_t size)
{
    return allocate_aligned(ALIGNMENT, size);
}

void free(void *pointer)
{
    if (pointer != NULL)
        __allocator_deallocate(header_of(pointer)->start);
}

/* As in the GNU C library, no bytes at all means free, and the result is NULL. */
void *realloc(void *pointer, size_t size)
{
    void *moved;

    if (pointer == NULL)
        return malloc(size);
    if (size == 0) {
        free(pointer);
        return NULL;
    }
    moved = malloc(size);
    if (moved != NULL) {
        size_t old_size = header_of(pointer)->size;

        memcpy(moved, pointer, old_size < size ? old_size : size);
        free(pointer);
    }
    return moved;
}

size_t malloc_usable_size(void *pointer)
{
    return pointer != NULL ? header_of(pointer)->size : 0;
}

void *memalign(size_t alignment, size_t size)
{
    if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
        errno = EINVAL;
        return NULL;
    }
    return allocate_aligned(alignment, size);
}
