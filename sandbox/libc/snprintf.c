/* Formatted text in memory: what does not fit is left out, and a NUL ends the text unless there is no room. */
#include <stdint.h>
#include <stdio.h>

#include "format.h"

static void put_in_buffer(struct printer *printer, char character)
{
    if (printer->count < printer->size)
        printer->buffer[printer->count] = character;
}

int vsnprintf(char *restrict buffer, size_t size, const char *restrict format, va_list arguments)
{
    struct printer printer = {
        .put = put_in_buffer,
        .buffer = buffer,
        .size = size == 0 ? 0 : size - 1,
    };
    int count = __format(&printer, format, arguments);

    if (size != 0)
        buffer[printer.count < size ? printer.count : size - 1] = '\0';
    return count;
}

int snprintf(char *restrict buffer, size_t size, const char *restrict format, ...)
{
    va_list arguments;
    int count;

    va_start(arguments, format);
    count = vsnprintf(buffer, size, format, arguments);
    va_end(arguments);
    return count;
}

int vsprintf(char *restrict buffer, const char *restrict format, va_list arguments)
{
    return vsnprintf(buffer, SIZE_MAX, format, arguments);
}

int sprintf(char *restrict buffer, const char *restrict format, ...)
{
    va_list arguments;
    int count;

    va_start(arguments, format);
    count = vsprintf(buffer, format, arguments);
    va_end(arguments);
    return count;
}
