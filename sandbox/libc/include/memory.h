/* memory.h: what string.h was called in System V. */
#include <string.h>
