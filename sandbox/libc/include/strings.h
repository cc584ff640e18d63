/* strings.h: bits, letters of either case, and what 4.3BSD called these things. */
#ifndef _STRINGS_H
#define _STRINGS_H

#include <stddef.h>

int ffs(int bits);
int ffsl(long bits);
int ffsll(long long bits);
int strcasecmp(const char *left, const char *right);
int strncasecmp(const char *left, const char *right, size_t limit);
int bcmp(const void *left, const void *right, size_t size);
void bcopy(const void *source, void *destination, size_t size);
void bzero(void *memory, size_t size);
char *index(const char *text, int character);
char *rindex(const char *text, int character);

#endif
