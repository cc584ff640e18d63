/* Copying strings, byte by byte; what is copied whole goes through the kernel's memcpy. */
#include <string.h>

void *mempcpy(void *restrict destination, const void *restrict source, size_t size)
{
    return (char *)memcpy(destination, source, size) + size;
}

/* Up to the first byte that is last; the address behind it, or NULL when it is not among size bytes. */
void *memccpy(void *restrict destination, const void *restrict source, int last, size_t size)
{
    const void *found = memchr(source, last, size);

    if (found != NULL)
        return mempcpy(destination, source, (size_t)((const char *)found - (const char *)source) + 1);
    memcpy(destination, source, size);
    return NULL;
}

/* Exactly size bytes: NULs fill what is left; none ends a source that does not fit. The end of the text. */
char *stpncpy(char *restrict destination, const char *restrict source, size_t size)
{
    size_t length = strnlen(source, size);

    memcpy(destination, source, length);
    memset(destination + length, '\0', size - length);
    return destination + length;
}

char *strncpy(char *restrict destination, const char *restrict source, size_t size)
{
    stpncpy(destination, source, size);
    return destination;
}

char *stpcpy(char *restrict destination, const char *restrict source)
{
    size_t length = strlen(source);

    memcpy(destination, source, length + 1);
    return destination + length;
}

char *strcat(char *restrict destination, const char *restrict source)
{
    strcpy(destination + strlen(destination), source);
    return destination;
}

/* At most limit bytes and then always a NUL. */
char *strncat(char *restrict destination, const char *restrict source, size_t limit)
{
    size_t length = strnlen(source, limit);
    char *end = mempcpy(destination + strlen(destination), source, length);

    *end = '\0';
    return destination;
}

/* What fits into size bytes, always with a NUL unless size is 0. The length of the source (OpenBSD). */
size_t strlcpy(char *restrict destination, const char *restrict source, size_t size)
{
    size_t length = strlen(source);

    if (size != 0) {
        size_t copied = length < size ? length : size - 1;

        memcpy(destination, source, copied);
        destination[copied] = '\0';
    }
    return length;
}

size_t strlcat(char *restrict destination, const char *restrict source, size_t size)
{
    size_t length = strnlen(destination, size);

    return length + strlcpy(destination + length, source, size - length);
}
