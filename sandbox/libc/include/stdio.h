/*
 * stdio.h: text on the kernel's console (C11 7.21). stdout and stderr both lead there, unbuffered; there is no
 * input and there are no files. Conversions for floating point do not exist.
 */
#ifndef _STDIO_H
#define _STDIO_H

#include <stdarg.h>
#include <stddef.h>

typedef struct {
    int descriptor;
} FILE;

extern FILE __stdout, __stderr;
#define stdout (&__stdout)
#define stderr (&__stderr)

#define EOF (-1)
#define BUFSIZ 1024
#define _IOFBF 0
#define _IOLBF 1
#define _IONBF 2

#define __formats(text, first) __attribute__((__format__(__printf__, text, first)))

/* printf.c */
int printf(const char *__restrict format, ...) __formats(1, 2);
int vprintf(const char *__restrict format, va_list arguments) __formats(1, 0);
int fprintf(FILE *__restrict stream, const char *__restrict format, ...) __formats(2, 3);
int vfprintf(FILE *__restrict stream, const char *__restrict format, va_list arguments) __formats(2, 0);

/* snprintf.c */
int sprintf(char *__restrict buffer, const char *__restrict format, ...) __formats(2, 3);
int vsprintf(char *__restrict buffer, const char *__restrict format, va_list arguments) __formats(2, 0);
int snprintf(char *__restrict buffer, size_t size, const char *__restrict format, ...) __formats(3, 4);
int vsnprintf(char *__restrict buffer, size_t size, const char *__restrict format, va_list arguments)
    __formats(3, 0);

/* stdio.c */
int putchar(int character);
int putc(int character, FILE *stream);
int fputc(int character, FILE *stream);
int puts(const char *text);
int fputs(const char *__restrict text, FILE *__restrict stream);
size_t fwrite(const void *__restrict data, size_t size, size_t count, FILE *__restrict stream);
int fflush(FILE *stream);
int setvbuf(FILE *__restrict stream, char *__restrict buffer, int mode, size_t size);
void setbuf(FILE *__restrict stream, char *__restrict buffer);
int fileno(FILE *stream);
void perror(const char *text);

#undef __formats

#endif
