/* sys/param.h: what 4.3BSD's programs know of the machine. */
#ifndef _SYS_PARAM_H
#define _SYS_PARAM_H

#include <limits.h>
#include <sys/types.h>

#define EXEC_PAGESIZE 4096
#define NBBY CHAR_BIT
#define NBPG 4096

#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define howmany(x, y) (((x) + ((y) - 1)) / (y))
#define roundup(x, y) (howmany(x, y) * (y))
#define powerof2(x) ((((x) - 1) & (x)) == 0)

#endif
