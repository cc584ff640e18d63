/* Memory for count things: the product must not overflow. On whatever malloc and realloc there are. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void *calloc(size_t count, size_t size)
{
    size_t bytes;
    void *pointer;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    pointer = malloc(bytes);
    if (pointer != NULL)
        memset(pointer, 0, bytes);
    return pointer;
}

void *reallocarray(void *pointer, size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(pointer, bytes);
}
