/* A program that allocates, resizes and frees at random, and checks every byte that it has written. */
#include <stdlib.h>

#define SLOTS 48

static unsigned char *held[SLOTS];
static unsigned int sizes[SLOTS];
static unsigned long state = 1;

static unsigned int below(unsigned int limit)
{
    state = state * 6364136223846793005ul + 1442695040888963407ul;
    return (unsigned int)(state >> 33) % limit;
}

static unsigned char byte(unsigned int slot, unsigned int at) { return (unsigned char)(37 * slot + at); }

static void fill(unsigned int slot)
{
    for (unsigned int at = 0; at < sizes[slot]; at++)
        held[slot][at] = byte(slot, at);
}

static int differs(unsigned int slot, unsigned int size)
{
    for (unsigned int at = 0; at < size; at++)
        if (held[slot][at] != byte(slot, at))
            return 1;
    return 0;
}

static int zeroed(unsigned char *chunk, unsigned int size)
{
    for (unsigned int at = 0; at < size; at++)
        if (chunk[at] != 0)
            return 0;
    return 1;
}

static int resize(unsigned int slot, unsigned int size)
{
    unsigned char *moved = realloc(held[slot], size);

    if (moved == NULL)
        return differs(slot, sizes[slot]) ? 4 : 0;
    held[slot] = moved;
    if (differs(slot, size < sizes[slot] ? size : sizes[slot]))
        return 5;
    sizes[slot] = size;
    fill(slot);
    return 0;
}

static int step(void)
{
    unsigned int slot = below(SLOTS), size = below(10) != 0 ? below(150) + 1 : below(5000) + 1;

    if (held[slot] == NULL) {
        int zeros = below(3) == 0;

        held[slot] = zeros ? calloc(size, 1) : malloc(size);
        if (held[slot] == NULL)
            return 0;
        if (zeros && !zeroed(held[slot], size))
            return 1;
        sizes[slot] = size;
        fill(slot);
        return 0;
    }
    if (below(3) == 0)
        return resize(slot, size);
    if (differs(slot, sizes[slot]))
        return 2;
    free(held[slot]);
    held[slot] = NULL;
    return 0;
}

int main(void)
{
    for (int turn = 0; turn < 900; turn++) {
        int wrong = step();

        if (wrong != 0)
            return wrong;
    }
    for (unsigned int slot = 0; slot < SLOTS; slot++) {
        if (held[slot] != NULL && differs(slot, sizes[slot]))
            return 3;
        free(held[slot]);
    }
    return 0;
}
