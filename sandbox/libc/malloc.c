/*
 * malloc on kmalloc. C wants a multiple of 16 for 16 bytes and more; kmalloc promises 8, and a power of two its
 * own size. What remains is kmalloc-96 and kmalloc-192, whose objects are at multiples of 32 until red zones lie
 * in between:
 *
 *   kmalloc-96, slab_debug=Z    |zone 8|--- 96 bytes ---|zone 8|zone 8|--- 96 bytes ---| ...
 *
 * What would end up there comes from the next cache that can place it.
 */
#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <string.h>

#include <sandbox.h>

#define ALIGNMENT 16

/* Whether every object of a cache lies at a multiple of alignment, a power of two. */
static bool aligns(const struct kmem_cache *cache, size_t alignment)
{
    return ((cache->size | cache->red_left_pad | cache->colour_step) & (alignment - 1)) == 0;
}

/* The smallest cache for objects of size bytes at multiples of alignment; NULL when there is none. */
static struct kmem_cache *cache_for(size_t size, size_t alignment)
{
    for (size_t i = 0; alignment <= PAGE_SIZE && i < KMALLOC_CACHES; i++)
        if (size <= kmalloc_caches[i]->object_size && aligns(kmalloc_caches[i], alignment))
            return kmalloc_caches[i];
    return NULL;
}

/* Memory at a multiple of alignment. Whole pages are aligned to the power of two that holds them. */
static void *allocate_aligned(size_t alignment, size_t size)
{
    struct kmem_cache *cache = cache_for(size, alignment);
    size_t pages = size > KMALLOC_MAX_CACHE ? size : KMALLOC_MAX_CACHE + 1;
    void *pointer = cache != NULL ? kmem_cache_alloc_sized(cache, size)
                                  : kmalloc(pages > alignment ? pages : alignment);

    if (pointer == NULL)
        errno = ENOMEM;
    return pointer;
}

void *malloc(size_t size)
{
    void *pointer = kmalloc(size != 0 ? size : 1);

    if (pointer == NULL) {
        errno = ENOMEM;
    } else if ((uintptr_t)pointer % ALIGNMENT != 0 && size >= ALIGNMENT) {
        kfree(pointer);
        return allocate_aligned(ALIGNMENT, size);
    }
    return pointer;
}

void free(void *pointer)
{
    kfree(pointer);
}

/* As in the GNU C library, no bytes at all means free, and the result is NULL. */
void *realloc(void *pointer, size_t size)
{
    void *moved;

    if (pointer == NULL)
        return malloc(size);
    if (size == 0) {
        kfree(pointer);
        return NULL;
    }
    if (size < ALIGNMENT || cache_for(size, ALIGNMENT) == cache_for(size, 1)) {
        moved = krealloc(pointer, size, 0);
        if (moved == NULL)
            errno = ENOMEM;
        return moved;
    }
    moved = allocate_aligned(ALIGNMENT, size);
    if (moved != NULL) {
        size_t old_size = ksize(pointer);

        memcpy(moved, pointer, old_size < size ? old_size : size);
        kfree(pointer);
    }
    return moved;
}

size_t malloc_usable_size(void *pointer)
{
    return ksize(pointer);
}

void *memalign(size_t alignment, size_t size)
{
    if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
        errno = EINVAL;
        return NULL;
    }
    if (size == 0)
        size = 1;
    if (alignment < ALIGNMENT && size >= ALIGNMENT)
        alignment = ALIGNMENT;
    return allocate_aligned(alignment, size);
}
