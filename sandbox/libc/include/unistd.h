/* unistd.h: the part of POSIX that an allocator asks for. */
#ifndef _UNISTD_H
#define _UNISTD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define STDIN_FILENO 0
#define STDOUT_FILENO 1
#define STDERR_FILENO 2

#define _SC_PAGESIZE 30
#define _SC_PAGE_SIZE _SC_PAGESIZE
#define _SC_NPROCESSORS_CONF 83
#define _SC_NPROCESSORS_ONLN 84
#define _SC_PHYS_PAGES 85

/* sbrk.c */
int brk(void *address);
void *sbrk(intptr_t increment);

/* sysconf.c */
int getpagesize(void);
long sysconf(int name);
pid_t getpid(void);

/* file.c: 1 and 2 are the console, and nothing else can be opened */
ssize_t write(int descriptor, const void *data, size_t size);
ssize_t read(int descriptor, void *data, size_t size);
int close(int descriptor);

/* exit.c */
_Noreturn void _exit(int status);

#endif
