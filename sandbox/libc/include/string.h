/* string.h: memory and strings (C11 7.24), with what POSIX and the common C libraries add. */
#ifndef _STRING_H
#define _STRING_H

#include <stddef.h>

/* The kernel's own, out of kernel_asm/string.asm. */
void *memcpy(void *__restrict destination, const void *__restrict source, size_t size);
void *memmove(void *destination, const void *source, size_t size);
void *memset(void *destination, int byte, size_t size);
int memcmp(const void *left, const void *right, size_t size);
size_t strlen(const char *text);
size_t strnlen(const char *text, size_t limit);
int strcmp(const char *left, const char *right);
int strncmp(const char *left, const char *right, size_t limit);
char *strcpy(char *__restrict destination, const char *__restrict source);

/* string_copy.c */
void *mempcpy(void *__restrict destination, const void *__restrict source, size_t size);
void *memccpy(void *__restrict destination, const void *__restrict source, int last, size_t size);
char *strncpy(char *__restrict destination, const char *__restrict source, size_t size);
char *stpcpy(char *__restrict destination, const char *__restrict source);
char *stpncpy(char *__restrict destination, const char *__restrict source, size_t size);
char *strcat(char *__restrict destination, const char *__restrict source);
char *strncat(char *__restrict destination, const char *__restrict source, size_t limit);
size_t strlcpy(char *__restrict destination, const char *__restrict source, size_t size);
size_t strlcat(char *__restrict destination, const char *__restrict source, size_t size);

/* string_search.c */
void *memchr(const void *memory, int byte, size_t size);
void *memrchr(const void *memory, int byte, size_t size);
void *memmem(const void *memory, size_t size, const void *wanted, size_t length);
char *strchr(const char *text, int character);
char *strchrnul(const char *text, int character);
char *strrchr(const char *text, int character);
char *strstr(const char *text, const char *wanted);

/* string_span.c */
size_t strspn(const char *text, const char *accepted);
size_t strcspn(const char *text, const char *rejected);
char *strpbrk(const char *text, const char *wanted);
char *strsep(char **rest, const char *separators);
char *strtok(char *__restrict text, const char *__restrict separators);
char *strtok_r(char *__restrict text, const char *__restrict separators, char **__restrict rest);

/* string_compare.c */
int strcoll(const char *left, const char *right);
size_t strxfrm(char *__restrict destination, const char *__restrict source, size_t size);

/* strdup.c, strerror.c */
char *strdup(const char *text);
char *strndup(const char *text, size_t limit);
char *strerror(int number);

#endif
