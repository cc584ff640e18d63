/* Sets of characters: how long a string stays in one, and cutting a string where it leaves one. */
#include <stdbool.h>
#include <string.h>

static size_t span(const char *text, const char *set, bool inside)
{
    size_t length = 0;

    while (text[length] != '\0' && (strchr(set, text[length]) != NULL) == inside)
        length++;
    return length;
}

size_t strspn(const char *text, const char *accepted)
{
    return span(text, accepted, true);
}

size_t strcspn(const char *text, const char *rejected)
{
    return span(text, rejected, false);
}

char *strpbrk(const char *text, const char *wanted)
{
    text += strcspn(text, wanted);
    return *text != '\0' ? (char *)text : NULL;
}

/* The next field, which may be empty; separators are replaced by NULs. */
char *strsep(char **rest, const char *separators)
{
    char *field = *rest;

    if (field == NULL)
        return NULL;
    *rest = strpbrk(field, separators);
    if (*rest != NULL)
        *(*rest)++ = '\0';
    return field;
}

/* The next field that is not empty. */
char *strtok_r(char *restrict text, const char *restrict separators, char **restrict rest)
{
    char *field = text != NULL ? text : *rest;

    if (field == NULL)
        return NULL;
    field += strspn(field, separators);
    *rest = field;
    return *field != '\0' ? strsep(rest, separators) : (*rest = NULL);
}

char *strtok(char *restrict text, const char *restrict separators)
{
    static char *rest;

    return strtok_r(text, separators, &rest);
}
