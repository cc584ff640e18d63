/* LVGL's TLSF 3.1 on an arena, under the names that the sandbox knows.
 *
 * It is compiled as a part of this file, for it includes a file of the directory above its own.
 */
#include "misc/lv_tlsf.c"

static lv_tlsf_t tlsf;

void init(void *start, unsigned long size)
{
    tlsf = lv_tlsf_create_with_pool(start, size);
}

/* TLSF aligns to 8 bytes; everything here begins at a multiple of 16. */
void *allocate(unsigned long size)
{
    return size < 16 ? lv_tlsf_malloc(tlsf, size) : lv_tlsf_memalign(tlsf, 16, size);
}

void *allocate_aligned(unsigned long alignment, unsigned long size)
{
    return lv_tlsf_memalign(tlsf, alignment, size);
}

void *reallocate(void *pointer, unsigned long size)
{
    return lv_tlsf_realloc(tlsf, pointer, size);
}

void deallocate(void *pointer)
{
    lv_tlsf_free(tlsf, pointer);
}

/* Its own opinion of its lists and blocks: 0 when they are sound. */
int consistent(void)
{
    return lv_tlsf_check(tlsf) | lv_tlsf_check_pool(lv_tlsf_get_pool(tlsf));
}
