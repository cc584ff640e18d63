/* The end, when something is wrong: a kernel panic, whose backtrace tells who called. */
#include <stdlib.h>

#include <sandbox.h>

_Noreturn void abort(void)
{
    panic("abort() was called");
}
