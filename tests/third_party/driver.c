/* Thousands of seeded calls of an allocator: every byte is written, and read again before it is given back.
 *
 * What it prints is what a model of these very draws prints (tests/third_party/model.py); which functions it calls is
 * said on the command line.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef ALLOCATE
#define ALLOCATE malloc
#define ALLOCATE_ZEROED calloc
#define ALLOCATE_ALIGNED memalign
#define REALLOCATE realloc
#define DEALLOCATE free
#endif

void *ALLOCATE(unsigned long size);
void *REALLOCATE(void *pointer, unsigned long size);
void DEALLOCATE(void *pointer);
#ifdef ALLOCATE_ZEROED
void *ALLOCATE_ZEROED(unsigned long count, unsigned long size);
#endif
#ifdef ALLOCATE_ALIGNED
void *ALLOCATE_ALIGNED(unsigned long alignment, unsigned long size);
#endif

#define SLOTS 64

static struct slot {
    unsigned char *bytes;
    unsigned long size;
    unsigned char pattern;
} slots[SLOTS];
static uint64_t state = SEED;
static unsigned long live, sum;

static unsigned long draw(unsigned long below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
}

/* Mostly small, sometimes a few pages. */
static unsigned long draw_size(void)
{
    unsigned long kind = draw(32);
    if (kind == 0)
        return 1 + draw(LARGE);
    return 1 + draw(kind < 5 ? 1024 : 128);
}

static void require(int condition, const char *what, const struct slot *slot)
{
    if (!condition) {
        printf("slot %d: %s, at %p\n", (int)(slot - slots), what, slot->bytes);
        exit(1);
    }
}

static void fill(struct slot *slot)
{
    memset(slot->bytes, slot->pattern, slot->size);
    slot->bytes[slot->size - 1] = (unsigned char)~slot->pattern;
}

/* The first bytes of a slot are as fill() left them. */
static void require_bytes(const struct slot *slot, unsigned long count)
{
    for (unsigned long index = 0; index < count; index++) {
        unsigned char expected = index == slot->size - 1 ? (unsigned char)~slot->pattern : slot->pattern;
        require(slot->bytes[index] == expected, "its bytes have changed", slot);
    }
}

static void take(struct slot *slot)
{
    unsigned long kind = draw(8), alignment = 16;
    slot->size = draw_size();
    slot->pattern = (unsigned char)draw(256);
#ifdef ALLOCATE_ZEROED
    if (kind == 0) {
        slot->bytes = ALLOCATE_ZEROED(1, slot->size);
        for (unsigned long index = 0; index < slot->size; index++)
            require(slot->bytes[index] == 0, "it is not zeroed", slot);
    } else
#endif
#ifdef ALLOCATE_ALIGNED
    if (kind == 1) {
        alignment = 32ul << draw(4);
        slot->bytes = ALLOCATE_ALIGNED(alignment, slot->size);
    } else
#endif
        slot->bytes = ALLOCATE(slot->size);
    require(slot->bytes != NULL, "no memory", slot);
    require((uintptr_t)slot->bytes % (kind == 1 || slot->size >= 16 ? alignment : 8) == 0, "it is not aligned", slot);
    fill(slot);
    live += slot->size;
}

static void resize(struct slot *slot)
{
    unsigned long size = draw_size(), kept = size < slot->size ? size : slot->size;
    slot->bytes = REALLOCATE(slot->bytes, size);
    require(slot->bytes != NULL, "no memory", slot);
    require_bytes(slot, kept);
    live += size - slot->size;
    slot->size = size;
    fill(slot);
}

static void give(struct slot *slot)
{
    require_bytes(slot, slot->size);
    DEALLOCATE(slot->bytes);
    live -= slot->size;
    slot->bytes = NULL;
}

int main(void)
{
    for (int round = 1; round <= ROUNDS; round++) {
        struct slot *slot = &slots[draw(SLOTS)];
        if (slot->bytes == NULL)
            take(slot);
        else if (draw(4) == 0)
            resize(slot);
        else
            give(slot);
        sum = sum * 31 + live;
        if (round % (ROUNDS / 4) == 0)
            printf("after %d rounds: %lu bytes live, sum %lx\n", round, live, sum);
    }
    return 0;
}

/* Give everything back; how many chunks it were. */
int drain(void)
{
    int count = 0;
    for (struct slot *slot = slots; slot < slots + SLOTS; slot++)
        if (slot->bytes != NULL) {
            give(slot);
            count++;
        }
    return count;
}

/* The two bugs that the shadow must find. */
void overflow(void)
{
    unsigned char *chunk = ALLOCATE(40);
    for (int index = 0; index <= 40; index++)
        chunk[index] = 1;                       /* writes one too many */
}

int use_after_free(void)
{
    unsigned char *chunk = ALLOCATE(40);
    chunk[8] = 1;
    DEALLOCATE(chunk);
    return chunk[8];                            /* reads what is free */
}
