/* Its assertions are the sandbox's: a broken heap is a panic with its line. */
#pragma once
#include <assert.h>
#define LV_ASSERT(condition) assert(condition)
