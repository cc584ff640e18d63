/* The other names of memalign. */
#include <errno.h>
#include <malloc.h>
#include <unistd.h>

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

/* The error is returned, errno stays, and so does *result then. */
int posix_memalign(void **result, size_t alignment, size_t size)
{
    int before = errno;
    void *pointer;

    if (alignment % sizeof(void *) != 0)
        return EINVAL;
    pointer = memalign(alignment, size);
    if (pointer == NULL) {
        int error = errno;

        errno = before;
        return error;
    }
    *result = pointer;
    return 0;
}

void *valloc(size_t size)
{
    return memalign((size_t)getpagesize(), size);
}
