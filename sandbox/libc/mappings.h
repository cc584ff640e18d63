/* mappings.h: which ranges mmap has given out. */
#ifndef MAPPINGS_H
#define MAPPINGS_H

#include <stddef.h>

struct mapping {
    char *start;
    char *end;
};

char *__mapping_reserve(size_t length);
void __mapping_forget(const char *start);
int __mapping_cut(char *start, char *end);
int __mapping_grow(char *end, size_t more);
int __mapping_covers(const char *start, const char *end);

#endif
