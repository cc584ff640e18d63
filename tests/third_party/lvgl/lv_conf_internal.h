/* The configuration of an LVGL that is its allocator alone; what lv_tlsf.c asks of the rest of the library. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define LV_USE_BUILTIN_MALLOC 1
#define LV_MEM_SIZE (1u << 20)
#define LV_MEM_POOL_EXPAND_SIZE 0
#define LV_UNUSED(name) ((void)(name))
#define lv_memcpy memcpy
