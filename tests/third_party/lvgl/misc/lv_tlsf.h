/* The interface of lv_tlsf.c, whose own header the package leaves out. */
#pragma once
#include <stddef.h>

typedef void *lv_tlsf_t;
typedef void *lv_pool_t;
typedef void (*lv_tlsf_walker)(void *ptr, size_t size, int used, void *user);

lv_tlsf_t lv_tlsf_create_with_pool(void *mem, size_t bytes);
lv_pool_t lv_tlsf_get_pool(lv_tlsf_t tlsf);
void *lv_tlsf_malloc(lv_tlsf_t tlsf, size_t bytes);
void *lv_tlsf_memalign(lv_tlsf_t tlsf, size_t align, size_t bytes);
void *lv_tlsf_realloc(lv_tlsf_t tlsf, void *ptr, size_t size);
size_t lv_tlsf_free(lv_tlsf_t tlsf, const void *ptr);
int lv_tlsf_check(lv_tlsf_t tlsf);
int lv_tlsf_check_pool(lv_pool_t pool);
