/* format.h: the one formatter, shared by those who print to the console and those who print to memory. */
#ifndef FORMAT_H
#define FORMAT_H

#include <stdarg.h>
#include <stddef.h>

/* Where formatted bytes go. */
struct printer {
    void (*put)(struct printer *printer, char character);
    size_t count;                           /* bytes of the text so far, those that did not fit included */
    char *buffer;                           /* for the one that fills memory */
    size_t size;
};

int __format(struct printer *printer, const char *format, va_list arguments);

#endif
