/* Comparing strings by the order of a locale, which is here the order of the bytes. */
#include <string.h>

int strcoll(const char *left, const char *right)
{
    return strcmp(left, right);
}

size_t strxfrm(char *restrict destination, const char *restrict source, size_t size)
{
    return strlcpy(destination, source, size);
}
