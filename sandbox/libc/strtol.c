/*
 * Numbers out of text (C11 7.22.1.4):
 *
 *   |white space|+ or -|0x or 0, for the bases 16, 8 and 0|digits| whatever follows, where *end points to
 *
 * On x86-64 long and long long are the same 64 bits, so that there is one reader for all of them.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>

struct number {
    uintmax_t magnitude;                    /* UINTMAX_MAX when it is too large */
    bool negative;
    bool too_large;
};

/* What a digit is worth; 36 for what is none. */
static unsigned int value_of(char digit)
{
    if (isdigit((unsigned char)digit))
        return (unsigned int)(digit - '0');
    if (isalpha((unsigned char)digit))
        return (unsigned int)(tolower((unsigned char)digit) - 'a') + 10;
    return 36;
}

/* Skip the prefix of a base, and find out the base where it is 0. A 0x without a digit behind it is a 0. */
static const char *skip_prefix(const char *text, unsigned int *base)
{
    if ((*base == 0 || *base == 16) && text[0] == '0' && (text[1] == 'x' || text[1] == 'X') &&
        value_of(text[2]) < 16) {
        *base = 16;
        return text + 2;
    }
    if (*base == 0)
        *base = text[0] == '0' ? 8 : 10;
    return text;
}

static struct number read_number(const char *text, char **end, int wanted_base)
{
    struct number number = { 0, false, false };
    unsigned int base = (unsigned int)wanted_base;
    const char *first;

    if (end != NULL)
        *end = (char *)text;
    if (base == 1 || base > 36) {
        errno = EINVAL;
        return number;
    }
    while (isspace((unsigned char)*text))
        text++;
    if (*text == '+' || *text == '-')
        number.negative = *text++ == '-';
    text = skip_prefix(text, &base);

    for (first = text; value_of(*text) < base; text++)
        if (__builtin_mul_overflow(number.magnitude, base, &number.magnitude) ||
            __builtin_add_overflow(number.magnitude, value_of(*text), &number.magnitude))
            number.too_large = true;
    if (end != NULL && text != first)
        *end = (char *)text;
    if (number.too_large)
        number.magnitude = UINTMAX_MAX;
    return number;
}

intmax_t strtoimax(const char *text, char **end, int base)
{
    struct number number = read_number(text, end, base);
    uintmax_t limit = (uintmax_t)INTMAX_MAX + number.negative;

    if (number.magnitude > limit) {
        errno = ERANGE;
        number.magnitude = limit;
    }
    return (intmax_t)(number.negative ? -number.magnitude : number.magnitude);
}

/* A minus sign negates in the unsigned type; what is too large stays the largest number. */
uintmax_t strtoumax(const char *text, char **end, int base)
{
    struct number number = read_number(text, end, base);

    if (number.too_large) {
        errno = ERANGE;
        return UINTMAX_MAX;
    }
    return number.negative ? -number.magnitude : number.magnitude;
}

long strtol(const char *restrict text, char **restrict end, int base)
{
    return strtoimax(text, end, base);
}

long long strtoll(const char *restrict text, char **restrict end, int base)
{
    return strtoimax(text, end, base);
}

unsigned long strtoul(const char *restrict text, char **restrict end, int base)
{
    return strtoumax(text, end, base);
}

unsigned long long strtoull(const char *restrict text, char **restrict end, int base)
{
    return strtoumax(text, end, base);
}

long long atoll(const char *text)
{
    return strtoll(text, NULL, 10);
}

long atol(const char *text)
{
    return strtol(text, NULL, 10);
}

int atoi(const char *text)
{
    return (int)strtol(text, NULL, 10);
}
