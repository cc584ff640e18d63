/* time.h: nothing in the guest knows the time; both functions say so as C11 7.27.2 has it, with -1. */
#ifndef _TIME_H
#define _TIME_H

#include <stddef.h>
#include <sys/types.h>

#define CLOCKS_PER_SEC 1000000L

clock_t clock(void);
time_t time(time_t *result);

#endif
