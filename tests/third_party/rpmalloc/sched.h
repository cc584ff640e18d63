/* What rpmalloc.c asks of it. */
#pragma once

int sched_yield(void);
