/*
 * Numbers that look random and are the same in every run: the upper 31 bits of a linear congruential generator
 * with 64 bits of state, Knuth's MMIX (The Art of Computer Programming, volume 2, 3.3.4). Until srand, as after
 * srand(1).
 */
#include <stdlib.h>

static unsigned long state = 1;

static unsigned long advance(unsigned long from)
{
    return 6364136223846793005ul * from + 1442695040888963407ul;
}

int rand(void)
{
    state = advance(state);
    return (int)(state >> 33);
}

void srand(unsigned int seed)
{
    state = seed;
}

long random(void)
{
    return rand();
}

void srandom(unsigned int seed)
{
    srand(seed);
}

/* With the caller's own state, of which there are 32 bits alone. */
int rand_r(unsigned int *seed)
{
    unsigned long next = advance(*seed);

    *seed = (unsigned int)(next >> 32);
    return (int)(next >> 33);
}
