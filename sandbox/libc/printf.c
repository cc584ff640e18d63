/* Formatted text on the console; one call's text stays in one piece, as kprintf's does. */
#include <stdio.h>

#include "console.h"
#include "format.h"

static void put_on_console(struct printer *printer, char character)
{
    (void)printer;
    serial_putc(character);
}

int vprintf(const char *restrict format, va_list arguments)
{
    struct printer printer = { .put = put_on_console };
    u64 flags = lock_console();
    int count = __format(&printer, format, arguments);

    unlock_console(flags);
    return count;
}

int printf(const char *restrict format, ...)
{
    va_list arguments;
    int count;

    va_start(arguments, format);
    count = vprintf(format, arguments);
    va_end(arguments);
    return count;
}

int vfprintf(FILE *restrict stream, const char *restrict format, va_list arguments)
{
    (void)stream;
    return vprintf(format, arguments);
}

int fprintf(FILE *restrict stream, const char *restrict format, ...)
{
    va_list arguments;
    int count;

    va_start(arguments, format);
    count = vfprintf(stream, format, arguments);
    va_end(arguments);
    return count;
}
