/* Kinds of characters, ASCII alone. Any int may be asked about; C11 7.4 has bytes and EOF. */
#include <ctype.h>

/* Whether first <= character <= last, with one comparison. */
static int between(int character, int first, int last)
{
    return (unsigned int)character - (unsigned int)first <= (unsigned int)last - (unsigned int)first;
}

int isascii(int character)
{
    return between(character, 0, 127);
}

int isdigit(int character)
{
    return between(character, '0', '9');
}

int islower(int character)
{
    return between(character, 'a', 'z');
}

int isupper(int character)
{
    return between(character, 'A', 'Z');
}

int isalpha(int character)
{
    return islower(character) || isupper(character);
}

int isalnum(int character)
{
    return isalpha(character) || isdigit(character);
}

int isxdigit(int character)
{
    return isdigit(character) || between(character, 'a', 'f') || between(character, 'A', 'F');
}

int isblank(int character)
{
    return character == ' ' || character == '\t';
}

int isspace(int character)
{
    return character == ' ' || between(character, '\t', '\r');
}

int iscntrl(int character)
{
    return between(character, 0, 31) || character == 127;
}

int isprint(int character)
{
    return between(character, ' ', '~');
}

int isgraph(int character)
{
    return between(character, '!', '~');
}

int ispunct(int character)
{
    return isgraph(character) && !isalnum(character);
}

int tolower(int character)
{
    return isupper(character) ? character + ('a' - 'A') : character;
}

int toupper(int character)
{
    return islower(character) ? character - ('a' - 'A') : character;
}
