/* What strings.h declares: bits, letters of either case, and old names. */
#include <ctype.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

/* The number of the lowest bit that is set, from 1; 0 when none is. */
int ffsll(long long bits)
{
    return bits != 0 ? __builtin_ctzll((unsigned long long)bits) + 1 : 0;
}

int ffsl(long bits)
{
    return ffsll(bits);
}

int ffs(int bits)
{
    return ffsll(bits);
}

int strncasecmp(const char *left, const char *right, size_t limit)
{
    for (; limit > 0; limit--, left++, right++) {
        int difference = tolower((unsigned char)*left) - tolower((unsigned char)*right);

        if (difference != 0 || *left == '\0')
            return difference;
    }
    return 0;
}

int strcasecmp(const char *left, const char *right)
{
    return strncasecmp(left, right, SIZE_MAX);
}

int bcmp(const void *left, const void *right, size_t size)
{
    return memcmp(left, right, size);
}

void bcopy(const void *source, void *destination, size_t size)
{
    memmove(destination, source, size);
}

void bzero(void *memory, size_t size)
{
    memset(memory, 0, size);
}

char *index(const char *text, int character)
{
    return strchr(text, character);
}

char *rindex(const char *text, int character)
{
    return strrchr(text, character);
}
