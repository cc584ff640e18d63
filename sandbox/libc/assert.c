/* A condition that should hold and does not: a kernel panic that names it. */
#include <assert.h>

#include <sandbox.h>

_Noreturn void __assert_fail(const char *condition, const char *file, unsigned int line, const char *function)
{
    panic("%s:%u: %s: Assertion `%s' failed.", file, line, function, condition);
}
