// First fit over a bitmap. A chunk is a run of grains; it ends at the grain whose bit is set in `last`.
//
//   used                    last           first                end
//   | used: a bit per grain | last: the same | grain | grain | ... |
//
// It refuses what it does not hold: deallocate returns -1 then, and 0 otherwise.
#include <sandbox.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define GRAIN 32

static uint8_t *used, *last, *first;
static size_t grains, unused, in_use;

static bool bit(const uint8_t *map, size_t grain) {
    return map[grain / 8] >> grain % 8 & 1;
}

static void toggle(uint8_t *map, size_t grain) {
    map[grain / 8] ^= (uint8_t)(1u << grain % 8);
}

void init(void *start, size_t size) {
    size_t bytes = size / GRAIN / 8;            // of one bitmap
    used = start;
    last = used + bytes;
    first = (uint8_t *)(((uintptr_t)last + bytes + GRAIN - 1) / GRAIN * GRAIN);
    grains = (size_t)(used + size - first) / GRAIN;
    unused = grains;
    in_use = 0;
    memset(used, 0, 2 * bytes);
}

void *allocate(size_t size) {
    if (size > unused * GRAIN)
        return NULL;                            // also what would overflow below
    size_t wanted = (size + (size == 0) + GRAIN - 1) / GRAIN;
    size_t row = 0;                             // free ones before this one
    for (size_t grain = 0; grain < grains; grain++) {
        row = bit(used, grain) ? 0 : row + 1;
        if (row < wanted)
            continue;
        toggle(last, grain);
        for (size_t taken = grain + 1 - wanted; taken <= grain; taken++)
            toggle(used, taken);
        unused -= wanted;
        in_use++;
        return first + (grain + 1 - wanted) * GRAIN;
    }
    return NULL;
}

int deallocate(void *pointer) {
    if (pointer == NULL)
        return 0;
    uintptr_t offset = (uintptr_t)pointer - (uintptr_t)first;
    size_t grain = offset / GRAIN;              // huge below the first
    if (offset % GRAIN != 0 || grain >= grains || !bit(used, grain))
        return -1;
    if (grain > 0 && bit(used, grain - 1) && !bit(last, grain - 1))
        return -1;                              // in the middle of a chunk
    for (bool more = true; more; grain++) {
        more = !bit(last, grain);
        toggle(used, grain);
        unused++;
    }
    toggle(last, grain - 1);
    in_use--;
    return 0;
}

void stats(struct allocator_stats *out) {
    out->in_use = in_use;
    out->free_bytes = unused * GRAIN;
}
