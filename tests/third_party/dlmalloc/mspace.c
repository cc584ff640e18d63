/* dlmalloc on an arena instead of sbrk and mmap, under the names that the sandbox knows: compiled with -DONLY_MSPACES. */
#include <stddef.h>

typedef void *mspace;
mspace create_mspace_with_base(void *base, size_t capacity, int locked);
void *mspace_malloc(mspace space, size_t bytes);
void mspace_free(mspace space, void *memory);
void *mspace_realloc(mspace space, void *memory, size_t bytes);
void *mspace_calloc(mspace space, size_t count, size_t bytes);
void *mspace_memalign(mspace space, size_t alignment, size_t bytes);

static mspace space;

void init(void *start, unsigned long size)
{
    space = create_mspace_with_base(start, size, 0);
}

void *allocate(unsigned long size)
{
    return mspace_malloc(space, size);
}

void *allocate_zeroed(unsigned long count, unsigned long size)
{
    return mspace_calloc(space, count, size);
}

void *allocate_aligned(unsigned long alignment, unsigned long size)
{
    return mspace_memalign(space, alignment, size);
}

void *reallocate(void *pointer, unsigned long size)
{
    return mspace_realloc(space, pointer, size);
}

void deallocate(void *pointer)
{
    mspace_free(space, pointer);
}
