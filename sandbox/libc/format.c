/*
 * The formatter of the printf family, as C11 7.21.6.1 has it, without floating point and wide characters.
 *
 *   %[flags][width][.precision][length]letter
 *
 *   flags      - + space # 0
 *   width      a number, or * for the next argument
 *   precision  the same
 *   length     hh h l ll j z t
 *   letter     d i u o x X c s p n %
 *
 * The kernel's own (kernel_asm/conversion.asm) knows no # j t n, prints 16 digits for %p and takes its arguments
 * as an array. What is no conversion is printed as it stands, as the kernel does.
 *
 *   a field    |spaces|prefix|zeros|digits|spaces|      prefix: a sign, or 0x
 */
#include "format.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { LEFT = 1, PLUS = 2, SPACE = 4, ALTERNATE = 8, ZERO = 16 };

/* What stands between a % and its letter. */
struct conversion {
    unsigned int flags;
    long width;
    long precision;                         /* -1: none */
    unsigned int bytes;                     /* of the integer argument; 0: a length that nobody knows */
    bool has_length;
};

/* A va_list that other functions can advance. */
struct arguments {
    va_list list;
};

static void put(struct printer *printer, char character)
{
    printer->put(printer, character);
    printer->count++;
}

static void put_repeated(struct printer *printer, char character, long count)
{
    for (; count > 0; count--)
        put(printer, character);
}

static void put_field(struct printer *printer, const struct conversion *conversion, const char *prefix,
                      long zeros, const char *text, long length)
{
    long spaces = conversion->width - (long)strlen(prefix) - zeros - length;

    if (!(conversion->flags & LEFT))
        put_repeated(printer, ' ', spaces);
    for (; *prefix != '\0'; prefix++)
        put(printer, *prefix);
    put_repeated(printer, '0', zeros);
    for (long at = 0; at < length; at++)
        put(printer, text[at]);
    if (conversion->flags & LEFT)
        put_repeated(printer, ' ', spaces);
}

static void put_number(struct printer *printer, const struct conversion *conversion, const char *prefix,
                       uintmax_t number, unsigned int base, bool capitals)
{
    const char *digits = capitals ? "0123456789ABCDEF" : "0123456789abcdef";
    char buffer[24];                        /* 22 octal digits are the most that 64 bits need */
    char *first = buffer + sizeof(buffer);
    long length, zeros;

    for (; number != 0; number /= base)
        *--first = digits[number % base];
    length = buffer + sizeof(buffer) - first;

    zeros = (conversion->precision < 0 ? 1 : conversion->precision) - length;
    if (base == 8 && (conversion->flags & ALTERNATE) && zeros <= 0)
        zeros = 1;
    if (conversion->precision < 0 && (conversion->flags & (ZERO | LEFT)) == ZERO) {
        long room = conversion->width - (long)strlen(prefix) - length;

        if (zeros < room)
            zeros = room;
    }
    put_field(printer, conversion, prefix, zeros > 0 ? zeros : 0, first, length);
}

static void put_signed(struct printer *printer, const struct conversion *conversion, intmax_t number)
{
    const char *prefix = "";
    uintmax_t magnitude = (uintmax_t)number;

    if (number < 0) {
        prefix = "-";
        magnitude = -magnitude;
    } else if (conversion->flags & PLUS) {
        prefix = "+";
    } else if (conversion->flags & SPACE) {
        prefix = " ";
    }
    put_number(printer, conversion, prefix, magnitude, 10, false);
}

static void put_string(struct printer *printer, const struct conversion *conversion, const char *text)
{
    size_t limit = conversion->precision < 0 ? SIZE_MAX : (size_t)conversion->precision;

    if (text == NULL)
        text = "(null)";
    put_field(printer, conversion, "", 0, text, (long)strnlen(text, limit));
}

/* Store the count where %n says. */
static void store_count(const struct printer *printer, unsigned int bytes, void *where)
{
    uintmax_t count = printer->count;

    memcpy(where, &count, bytes);           /* the low bytes come first */
}

static intmax_t next_signed(struct arguments *arguments, unsigned int bytes)
{
    intmax_t number = bytes == 8 ? va_arg(arguments->list, long) : va_arg(arguments->list, int);
    unsigned int unused = 64 - 8 * bytes;

    return (intmax_t)((uintmax_t)number << unused) >> unused;
}

static uintmax_t next_unsigned(struct arguments *arguments, unsigned int bytes)
{
    unsigned int unused = 64 - 8 * bytes;

    return (uintmax_t)next_signed(arguments, bytes) << unused >> unused;
}

/* Decimal digits, or * for an int from the arguments; what is too large for an int is INT_MAX + 1. */
static const char *read_number(const char *format, struct arguments *arguments, long *number)
{
    *number = 0;
    if (*format == '*') {
        *number = va_arg(arguments->list, int);
        return format + 1;
    }
    for (; *format >= '0' && *format <= '9'; format++)
        if (*number <= INT_MAX)
            *number = *number * 10 + (*format - '0');
    return format;
}

static const char *read_length(const char *format, struct conversion *conversion)
{
    const char *start = format;

    conversion->bytes = 4;
    if (format[0] == 'h' && format[1] == 'h') {
        conversion->bytes = 1;
        format += 2;
    } else if (format[0] == 'l' && format[1] == 'l') {
        conversion->bytes = 8;
        format += 2;
    } else if (*format == 'h') {
        conversion->bytes = 2;
        format++;
    } else if (*format == 'l' || *format == 'j' || *format == 'z' || *format == 't') {
        conversion->bytes = 8;
        format++;
    }
    conversion->has_length = format != start;
    return format;
}

static unsigned int flag_of(char character)
{
    switch (character) {
    case '-':
        return LEFT;
    case '+':
        return PLUS;
    case ' ':
        return SPACE;
    case '#':
        return ALTERNATE;
    case '0':
        return ZERO;
    default:
        return 0;
    }
}

/* Read what stands between % and letter, and return where the letter is. */
static const char *read_conversion(const char *format, struct arguments *arguments,
                                   struct conversion *conversion)
{
    conversion->flags = 0;
    for (; flag_of(*format) != 0; format++)
        conversion->flags |= flag_of(*format);

    format = read_number(format, arguments, &conversion->width);
    if (conversion->width < 0) {
        conversion->flags |= LEFT;
        conversion->width = -conversion->width;
    }
    conversion->precision = -1;
    if (*format == '.') {
        format = read_number(format + 1, arguments, &conversion->precision);
        if (conversion->precision < 0)      /* from an argument: as if there were none */
            conversion->precision = -1;
    }
    return read_length(format, conversion);
}

/* Print one argument; false when the letter is none of ours. */
static bool convert(struct printer *printer, const struct conversion *conversion, char letter,
                    struct arguments *arguments)
{
    uintmax_t number;
    char character;

    switch (letter) {
    case 'd':
    case 'i':
        put_signed(printer, conversion, next_signed(arguments, conversion->bytes));
        return true;
    case 'u':
        put_number(printer, conversion, "", next_unsigned(arguments, conversion->bytes), 10, false);
        return true;
    case 'o':
        put_number(printer, conversion, "", next_unsigned(arguments, conversion->bytes), 8, false);
        return true;
    case 'x':
    case 'X':
        number = next_unsigned(arguments, conversion->bytes);
        put_number(printer, conversion,
                   number == 0 || !(conversion->flags & ALTERNATE) ? "" : letter == 'x' ? "0x" : "0X",
                   number, 16, letter == 'X');
        return true;
    case 'p':
        number = (uintmax_t)va_arg(arguments->list, void *);
        if (number == 0)
            put_field(printer, conversion, "", 0, "(nil)", 5);
        else
            put_number(printer, conversion, "0x", number, 16, false);
        return true;
    case 'c':
        if (conversion->has_length)
            return false;
        character = (char)va_arg(arguments->list, int);
        put_field(printer, conversion, "", 0, &character, 1);
        return true;
    case 's':
        if (conversion->has_length)
            return false;
        put_string(printer, conversion, va_arg(arguments->list, const char *));
        return true;
    case 'n':
        store_count(printer, conversion->bytes, va_arg(arguments->list, void *));
        return true;
    case '%':
        put(printer, '%');
        return true;
    default:
        return false;
    }
}

/* Print a whole format; false when an int cannot hold the length of a field or of the text. */
static bool print(struct printer *printer, const char *format, struct arguments *arguments)
{
    struct conversion conversion;
    const char *letter;

    for (; *format != '\0'; format++) {
        if (*format != '%') {
            put(printer, *format);
            continue;
        }
        letter = read_conversion(format + 1, arguments, &conversion);
        if (conversion.width > INT_MAX || conversion.precision > INT_MAX)
            return false;
        if (convert(printer, &conversion, *letter, arguments))
            format = letter;
        else
            put(printer, '%');
    }
    return printer->count <= INT_MAX;
}

/* Print a format with its arguments. The length of the text, or -1 with EOVERFLOW when no int can hold it. */
int __format(struct printer *printer, const char *format, va_list list)
{
    struct arguments arguments;
    bool fits;

    va_copy(arguments.list, list);
    fits = print(printer, format, &arguments);
    va_end(arguments.list);
    if (!fits)
        errno = EOVERFLOW;
    return fits ? (int)printer->count : -1;
}
