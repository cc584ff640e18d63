/*
 * Sorting in place, without recursion and without memory: a heap sort, as in Linux's lib/sort.c, never worse
 * than n log n. It is not stable.
 *
 *   |<- heap: each element is at least its children, 2i + 1 and 2i + 2 ->|<- sorted, none is smaller ->|
 */
#include <stdlib.h>

typedef int (*compare_function)(const void *, const void *);

static void swap(char *left, char *right, size_t size)
{
    for (; size > 0; size--) {
        char byte = *left;

        *left++ = *right;
        *right++ = byte;
    }
}

/* Let the element at an index sink until no child is larger. */
static void sift_down(char *array, size_t index, size_t count, size_t size, compare_function compare)
{
    for (;;) {
        size_t child = 2 * index + 1;

        if (child >= count)
            return;
        if (child + 1 < count && compare(array + child * size, array + (child + 1) * size) < 0)
            child++;
        if (compare(array + index * size, array + child * size) >= 0)
            return;
        swap(array + index * size, array + child * size, size);
        index = child;
    }
}

void qsort(void *array, size_t count, size_t size, compare_function compare)
{
    for (size_t index = count / 2; index-- > 0;)
        sift_down(array, index, count, size, compare);
    for (; count > 1; count--) {
        swap(array, (char *)array + (count - 1) * size, size);
        sift_down(array, 0, count - 1, size, compare);
    }
}
