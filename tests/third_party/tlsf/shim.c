/* TLSF 2.4.6 on an arena, under the names that the sandbox knows. */
#include "tlsf.h"

static void *pool;

/* A pool that carries its signature would be taken as it is. */
void init(void *start, unsigned long size)
{
    pool = start;
    destroy_memory_pool(pool);
    init_memory_pool(size, pool);
}

void *allocate(unsigned long size)
{
    return malloc_ex(size, pool);
}

void *allocate_zeroed(unsigned long count, unsigned long size)
{
    return calloc_ex(count, size, pool);
}

void *reallocate(void *pointer, unsigned long size)
{
    return realloc_ex(pointer, size, pool);
}

void deallocate(void *pointer)
{
    free_ex(pointer, pool);
}
