/* Single characters and strings on the console. A stream has no buffer and is no more than its number. */
#include <stdio.h>

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "console.h"

FILE __stdout = { .descriptor = 1 };
FILE __stderr = { .descriptor = 2 };

static void put_bytes(const void *data, size_t size)
{
    u64 flags = lock_console();

    serial_write(data, size);
    unlock_console(flags);
}

int putchar(int character)
{
    unsigned char byte = (unsigned char)character;

    put_bytes(&byte, 1);
    return byte;
}

int fputc(int character, FILE *stream)
{
    (void)stream;
    return putchar(character);
}

int putc(int character, FILE *stream)
{
    return fputc(character, stream);
}

int fputs(const char *restrict text, FILE *restrict stream)
{
    (void)stream;
    put_bytes(text, strlen(text));
    return 0;
}

int puts(const char *text)
{
    u64 flags = lock_console();

    serial_write(text, strlen(text));
    serial_putc('\n');
    unlock_console(flags);
    return 0;
}

size_t fwrite(const void *restrict data, size_t size, size_t count, FILE *restrict stream)
{
    (void)stream;
    if (size != 0)
        put_bytes(data, size * count);
    return size != 0 ? count : 0;
}

int fflush(FILE *stream)
{
    (void)stream;
    return 0;
}

int setvbuf(FILE *restrict stream, char *restrict buffer, int mode, size_t size)
{
    (void)stream, (void)buffer, (void)size;
    return mode == _IONBF ? 0 : -1;
}

void setbuf(FILE *restrict stream, char *restrict buffer)
{
    (void)stream, (void)buffer;
}

int fileno(FILE *stream)
{
    return stream->descriptor;
}

void perror(const char *text)
{
    u64 flags;
    const char *reason = strerror(errno);

    flags = lock_console();
    if (text != NULL && *text != '\0') {
        serial_write(text, strlen(text));
        serial_write(": ", 2);
    }
    serial_write(reason, strlen(reason));
    serial_putc('\n');
    unlock_console(flags);
}
