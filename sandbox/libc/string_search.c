/* Finding bytes in memory and in strings. A character is searched for as a byte; a NUL is found too. */
#include <string.h>

void *memchr(const void *memory, int byte, size_t size)
{
    const unsigned char *at = memory;

    for (; size > 0; size--, at++)
        if (*at == (unsigned char)byte)
            return (void *)at;
    return NULL;
}

void *memrchr(const void *memory, int byte, size_t size)
{
    const unsigned char *bytes = memory;

    while (size-- > 0)
        if (bytes[size] == (unsigned char)byte)
            return (void *)(bytes + size);
    return NULL;
}

void *memmem(const void *memory, size_t size, const void *wanted, size_t length)
{
    const char *at = memory;

    for (; size >= length; size--, at++)
        if (memcmp(at, wanted, length) == 0)
            return (void *)at;
    return NULL;
}

/* The first such character, or else the NUL at the end. */
char *strchrnul(const char *text, int character)
{
    while (*text != '\0' && *text != (char)character)
        text++;
    return (char *)text;
}

char *strchr(const char *text, int character)
{
    char *found = strchrnul(text, character);

    return *found == (char)character ? found : NULL;
}

char *strrchr(const char *text, int character)
{
    return memrchr(text, character, strlen(text) + 1);
}

char *strstr(const char *text, const char *wanted)
{
    return memmem(text, strlen(text), wanted, strlen(wanted));
}
