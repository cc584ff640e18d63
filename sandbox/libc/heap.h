/*
 * heap.h: the pages behind sbrk and mmap. A range is mapped whole or not at all; unmapped, it keeps no frame.
 */
#ifndef HEAP_H
#define HEAP_H

#include <stddef.h>

#include <sandbox.h>

/* The rights of a page, as map_page takes them. No flags at all: no page. */
#define READ_ONLY PTE_NX
#define READ_WRITE (PTE_NX | PTE_WRITE)
#define NO_ACCESS 0ul

int __heap_map(char *start, char *end, u64 flags);
void __heap_unmap(char *start, char *end);
u64 __heap_entry(const char *page);
int __heap_flags(int protection, u64 *flags);

static inline size_t page_up(size_t size)
{
    return (size + PAGE_SIZE - 1) & -(size_t)PAGE_SIZE;
}

static inline int is_page(const void *address)
{
    return (uintptr_t)address % PAGE_SIZE == 0;
}

#endif
