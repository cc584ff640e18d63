/* rpmalloc for one thread, on mmap, under the names that the sandbox knows. */
#include "rpmalloc.h"

/* Nobody else is there to run. */
int sched_yield(void)
{
    return 0;
}

void init(void *start, unsigned long size)
{
    (void)start, (void)size;
    rpmalloc_initialize();
}

void *allocate(unsigned long size)
{
    return rpmalloc(size);
}

void *allocate_zeroed(unsigned long count, unsigned long size)
{
    return rpcalloc(count, size);
}

void *allocate_aligned(unsigned long alignment, unsigned long size)
{
    return rpaligned_alloc(alignment, size);
}

void *reallocate(void *pointer, unsigned long size)
{
    return rprealloc(pointer, size);
}

void deallocate(void *pointer)
{
    rpfree(pointer);
}
