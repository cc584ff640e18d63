/*
 * sandbox.h: what a module in C knows of the kernel.
 *
 * Generated from sandbox/abi.py and from the comments in kernel_asm/ by
 *     python -m sandbox.toolchain.c.header
 * Do not edit; a test keeps it current.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

/* -- the memory map -------------------------------------------------------------------------------------- */
/* Virtual, as in Linux on x86-64 (Documentation/arch/x86/x86_64/mm.rst). */
#define KERNEL_BASE                0xffffffff80000000ul /* the kernel image: text R-X, read-only data R--, data RW- */
#define PROGRAM_BASE               0xffffffffa0000000ul /* the program that is run, where Linux has its modules */
#define MODULES_BASE               0xffffffffa8000000ul /* modules in C beside a program in assembly */
#define DIRECT_MAP                 0xffff888000000000ul /* all physical memory, RW- and never executable */
/* an allocator of somebody else, beside the program or without one */
#define ALLOCATOR_BASE             0xffffffffb0000000ul
#define ARENA_BASE                 0xffffca0000000000ul /* the memory that it may give out, between unmapped pages */
/* what the C library's sbrk and mmap map, a slot for each linked image */
#define HEAPS_BASE                 0xffffcb0000000000ul
/* bytes from one to the next; sbrk grows from its start, mmap from its middle */
#define HEAP_SLOT                  0x1000000000ul
#define STACKS_BASE                0xffffc90000000000ul /* stacks, each in a slot of its own below unmapped pages */
/* bytes from one stack's slot to the next; a stack ends where its slot ends */
#define STACK_SLOT                 0x10000
#define KERNEL_STACK_SIZE          0x4000
#define IST_STACK_SIZE             0x1000

/* Physical. What a loader places lies in one piece from LOADER_PHYS up, so that one multiboot segment
   holds it. */
/* the multiboot header and its 32-bit entry, used by QEMU alone */
#define LOADER_PHYS                0x100000
#define BOOT_INFO_PHYS             0x101000             /* struct boot_info */
#define PAGE_TABLES_PHYS           0x102000             /* page tables, up to KERNEL_PHYS */
/* kernel image, program image, stacks; free memory begins behind them */
#define KERNEL_PHYS                0x200000
#define HOLE_START                 0xa0000              /* VGA memory and ROMs of a PC: no RAM */
#define HOLE_END                   0x100000
#define MINIMUM_RAM                0x400000             /* 4 MiB */
#define MAXIMUM_RAM                0x80000000ul         /* 2 GiB: below the PCI hole of a PC */

#define PAGE_SHIFT                 12
#define PAGE_SIZE                  4096
#define MAX_ORDER                  10                   /* the largest buddy block is 2^10 pages, 4 MiB */
#define CACHE_LINE                 64

/* -- ports and interrupts -------------------------------------------------------------------------------- */
#define SERIAL_PORT                0x3f8                /* 16550 UART, COM1, IRQ 4 */
/* isa-debug-exit: the guest writes v, QEMU's status is 2 * v + 1 */
#define DEBUG_EXIT_PORT            0xf4
#define PIC1_PORT                  0x20
#define PIC2_PORT                  0xa0
#define PIT_PORT                   0x40
#define PIT_HZ                     1193182              /* the 8254's input clock */
#define IRQ_BASE                   0x20                 /* the vector of IRQ 0 */
#define IRQS                       16
#define TIMER_IRQ                  0
#define SERIAL_IRQ                 4

#define DEBUG_EXIT_SUCCESS         0x10                 /* QEMU's status 33: main returned 0 */
#define DEBUG_EXIT_FAILURE         0x11                 /* 35: main returned anything else */
#define DEBUG_EXIT_PANIC           0x12                 /* 37: the kernel gave up */

/* -- selectors and interrupt stacks ---------------------------------------------------------------------- */
#define KERNEL_CS                  0x8
#define KERNEL_DS                  0x10
#define USER_DS                    0x1b
#define USER_CS                    0x23
#define TSS_SELECTOR               0x28
#define IST_DOUBLE_FAULT           1
#define IST_NMI                    2
#define IST_MACHINE_CHECK          3

/* -- errors, as in Linux's errno-base.h; functions return them negated ----------------------------------- */
#define E2BIG                      7
#define ENOMEM                     12
#define EFAULT                     14
#define EBUSY                      16
#define EEXIST                     17
#define EINVAL                     22

/* -- the allocator --------------------------------------------------------------------------------------- */
#define BOOT_MAGIC                 0x31584f42444e4153ul /* "SANDBOX1" */
#define ZERO_SIZE_PTR              ((void *)0x10)       /* what kmalloc(0) returns (include/linux/slab.h) */
#define GFP_ZERO                   0x100                /* krealloc: bytes that were not there before read as zero */
/* links of an entry that is on no list (include/linux/poison.h) */
#define LIST_POISON1               ((struct list_head *)0xdead000000000100ul)
#define LIST_POISON2               ((struct list_head *)0xdead000000000122ul)
#define KMALLOC_CACHES             13
#define KMALLOC_MAX_CACHE          8192                 /* a larger request gets whole pages */
#define KMALLOC_STEPS              1024                 /* entries of the table from (size - 1) / 8 to the cache */
#define KMALLOC_MAX_SIZE           0x400000
#define SLAB_MAX_OBJECT            0x10000              /* the largest object of a cache */
/* objects in a full magazine, so that struct magazine has 256 bytes */
#define MAGAZINE_ROUNDS            29
#define PERCPU_SLOTS               255                  /* caches with magazines, and slot 0 for all the others */
#define DEPOT_LIMIT                8                    /* full magazines that a depot keeps */
#define EMPTY_SLAB_LIMIT           2                    /* empty slabs that a cache keeps */
#define STRUCT_PAGE_SHIFT          6                    /* log2 sizeof(struct page) */

/* -- debugging the allocator (Linux, include/linux/poison.h and mm/slub.c) ------------------------------- */
#define SLUB_RED_INACTIVE          0xbb                 /* red zones of a free object */
#define SLUB_RED_ACTIVE            0xcc                 /* red zones of a live one */
#define POISON_INUSE               0x5a                 /* bytes of a slab that belong to nobody */
#define POISON_FREE                0x6b                 /* a free object */
#define POISON_END                 0xa5                 /* its last byte */
#define TRACK_FRAMES               16                   /* return addresses that a struct track keeps */
/* objects of any slab: larger slabs are made for larger objects alone */
#define SLAB_MAX_OBJECTS           512

#define SLAB_DEBUG_DEFAULT_FLAGS   0x10d00
#define SLAB_DEBUG_METADATA_FLAGS  0x10c00
#define SLAB_DEBUG_FLAGS           0x2210d00
#define SLAB_CREATE_FLAGS          0x1a213d00

#define PANIC_VECTOR               256                  /* pt_regs.vector when panic() was called */

/* page.flags: what a frame is. No bit set: an allocated page that belongs to its caller. */
enum page_flag {
    PG_RESERVED = 0x1,                      /* no RAM, or placed by the loader: never given out */
    PG_BUDDY = 0x2,                         /* first frame of a free block of 2^order frames */
    PG_HEAD = 0x4,                          /* first frame of an allocated block of 2^order frames */
    PG_SLAB = 0x8,                          /* any frame of a slab */
    PG_LARGE = 0x10,                        /* any frame of a kmalloc that was too large for the caches */
    PG_TABLE = 0x20                         /* a page table made by map_page */
};

/* kmem_cache.flags, with Linux's values where Linux has the flag (include/linux/slab.h). */
enum slab_flag {
    SLAB_CONSISTENCY_CHECKS = 0x100,
    SLAB_RED_ZONE = 0x400,
    SLAB_POISON = 0x800,
    SLAB_KMALLOC = 0x1000,
    SLAB_HWCACHE_ALIGN = 0x2000,
    SLAB_STORE_USER = 0x10000,
    SLAB_TRACE = 0x200000,
    SLAB_FAILSLAB = 0x2000000,
    SLAB_NO_USER_FLAGS = 0x8000000,         /* the slab_debug option does not apply */
    SLAB_NO_MAGAZINES = 0x10000000,         /* ours: every call goes to the slabs */
    SLAB_BOOT = 0x20000000,                 /* ours: made at boot, never destroyed */
    SLAB_OBJECT_POISON = 0x40000000         /* Linux's __OBJECT_POISON: SLAB_POISON, and no constructor forbids it */
};

/* page.list: the list of its cache that a slab is on. */
enum slab_list {
    SLAB_LIST_NONE = 0,
    SLAB_LIST_PARTIAL = 1,
    SLAB_LIST_FULL = 2,
    SLAB_LIST_EMPTY = 3
};

/* boot_info.flags: what the kernel is asked to do differently. */
enum boot_flag {
    BOOT_NO_MAGAZINES = 0x1
};

/* memory_region.type, the E820 types that a loader here uses (ACPI 6.5, table 15.4). */
enum memory_type {
    MEMORY_USABLE = 1,
    MEMORY_RESERVED = 2
};

/* -- structures ------------------------------------------------------------------------------------------ */
/* A doubly linked, circular list; an empty one points at itself. */
struct list_head {
    struct list_head *next;                 /* the first entry's link, or this one */
    struct list_head *prev;                 /* the last entry's link, or this one */
};

/* One line of the memory map that the loader hands over. */
struct memory_region {
    u64 base;                               /* physical address */
    u64 length;                             /* bytes */
    u32 type;                               /* MEMORY_USABLE or MEMORY_RESERVED */
    u32 reserved;
};

/* What the loader tells the kernel; RDI at _start is its address in the direct map. */
struct boot_info {
    u64 magic;                              /* BOOT_MAGIC */
    u64 ram_size;                           /* bytes of RAM, the hole counted in */
    u64 cr3;                                /* physical address of the PML4 */
    u64 loader_end;                         /* physical address of the first byte that the loader left free */
    u64 kernel_end;                         /* virtual address behind the kernel image */
    u64 program_start;                      /* virtual address of the program image, 0 without one */
    u64 program_end;                        /* virtual address behind the program image */
    int (*main)(void);                      /* int main(void) of the program, or 0 */
    void *stack_top;                        /* the boot CPU's kernel stack */
    void *ist_top[3];                       /* stacks for #DF, NMI and #MC */
    u64 flags;                              /* BOOT_* */
    u32 hz;                                 /* timer ticks a second, 0 for none */
    u32 empty_slab_limit;                   /* empty slabs that each cache keeps */
    u64 seed;                               /* for everything that the kernel chooses at random */
    u32 freelist_hardened;                  /* 1: free pointers are stored encoded */
    u32 freelist_random;                    /* 1: objects of a new slab are linked in random order */
    u64 regions;                            /* how many entries of the memory map are used */
    struct memory_region map[8];            /* the memory map, ascending */
    char slab_debug[128];                   /* the slab_debug option, in Linux's syntax */
    u64 freelist_seed;                      /* for the order in which a new slab's objects are linked */
};

/* struct page: one for each frame of RAM, in one array at mem_map. */
struct page {
    u32 flags;                              /* PG_* */
    u8 order;                               /* first frame of a block: log2 of its frames */
    u8 list;                                /* first frame of a slab: SLAB_LIST_* */
    /* first frame of a slab: objects that are out of the slab, those in magazines included */
    u16 inuse;
    u16 objects;                            /* first frame of a slab: how many objects it was cut into */
    u16 reserved;
    u32 colour;                             /* first frame of a slab: bytes before the first object */
    struct list_head *next;                 /* link in a buddy list or in a list of slabs: a struct list_head */
    struct list_head *prev;
    struct kmem_cache *cache;               /* every frame of a slab: struct kmem_cache */
    void *freelist;                         /* first frame of a slab: first free object, 0 when there is none */
    struct page *head;                      /* every frame of an allocated block: struct page of its first frame */
#ifdef __cplusplus
    u64 private_;                           /* first frame of a large kmalloc: the bytes that were asked for */
#else
    u64 private;                            /* first frame of a large kmalloc: the bytes that were asked for */
#endif
};

/* A stack of free objects (Bonwick and Adams, USENIX 2001). Whole magazines change hands, never parts. */
struct magazine {
    struct magazine *next;                  /* the next magazine in the same depot list */
    u64 rounds;                             /* objects in it; out of date while it is loaded */
    u64 bottom;                             /* always 0: a pop that reads it has found the magazine empty */
    void *objects[29];                      /* free objects, the next to be taken last */
};

/* One row of the kernel's table of magazine sizes. */
struct magazine_size {
    u32 largest;                            /* object size up to which this row holds */
    u32 rounds;                             /* objects in a full magazine */
};

/* One row of the kernel's table of kmalloc caches. */
struct kmalloc_info {
    const char *name;
    u32 size;                               /* bytes of an object */
    u32 align;                              /* its alignment */
};

/* One CPU's front of one cache. A disabled one has top == limit and a 0 below top: always both empty and
   full, so that every call takes the slow path. */
struct kmem_cache_cpu {
    void **top;                             /* behind the last object of the loaded magazine */
    void **limit;                           /* where top is when the loaded magazine is full */
    struct magazine *loaded;                /* struct magazine, 0 when disabled */
    struct magazine *previous;              /* struct magazine: full or empty, never in between */
    u64 alloc_fastpath;                     /* objects taken from the loaded magazine */
    u64 free_fastpath;                      /* objects put into the loaded magazine */
    u64 unused[2];
};

/* One CPU's own data; GS points at it. Offset 0 is never used, so that no access has a zero displacement. */
struct percpu {
    u64 reserved;
    struct percpu *self;                    /* the address of this structure */
    u32 cpu;                                /* number of this CPU, from 0 */
    u32 interrupt_depth;                    /* interrupts being handled */
    u64 ticks;                              /* timer interrupts since boot */
    u64 interrupts;                         /* interrupts of any kind since boot */
    u64 restarts;                           /* critical sections that an interrupt sent back to their start */
    u64 unused[2];
    struct kmem_cache_cpu slots[255];       /* kmem_cache.cpu selects one; the first is disabled for ever */
};

/* An object cache. Everything below lock that changes is changed with it held. */
struct kmem_cache {
    u64 cpu;                                /* GS offset of this CPU's kmem_cache_cpu */
    u32 lock;                               /* spinlock, taken with interrupts off */
    u32 flags;                              /* SLAB_* */
    u32 object_size;                        /* bytes that a caller may use */
    u32 size;                               /* bytes from one object to the next */
    u32 align;                              /* alignment of every object */
    u32 offset;                             /* where the free pointer lies, from the object's first byte */
    /* where the bytes behind the object begin: free pointer outside, owners, padding */
    u32 metadata;
    u32 red_left_pad;                       /* bytes of red zone in front of each object */
    u32 order;                              /* a slab is 2^order pages */
    u32 objects;                            /* objects in a slab */
    u32 colour;                             /* how many different offsets a slab's first object may have */
    u32 colour_step;                        /* bytes between two of them */
    u32 colour_next;                        /* the colour of the next slab */
    u32 empty_limit;                        /* empty slabs that are kept */
    void (*ctor)(void *object);             /* void ctor(void *object), run once for each object of a new slab, or 0 */
    u64 random;                             /* secret with which free pointers are encoded */
    u16 *random_seq;                        /* u16 array: the order in which a new slab's objects are linked, or 0 */
    struct list_head partial;               /* slabs with objects in and out */
    struct list_head full;                  /* slabs with every object out */
    struct list_head empty;                 /* slabs with every object in */
    u32 nr_partial;
    u32 nr_full;
    u32 nr_empty;
    u32 rounds;                             /* objects in a full magazine of this cache */
    struct magazine *depot_full;            /* full magazines, linked by magazine.next */
    struct magazine *depot_empty;           /* empty magazines */
    u32 nr_depot_full;
    u32 nr_depot_empty;
    struct list_head list;                  /* link in slab_caches */
    u64 alloc_slowpath;                     /* allocations that the loaded magazine could not serve */
    u64 free_slowpath;                      /* frees that the loaded magazine could not take */
    u64 alloc_slab;                         /* slabs taken from the pages */
    u64 free_slab;                          /* slabs given back */
    u64 failed;                             /* allocations that were answered with 0 */
    u64 exchanges;                          /* magazines exchanged with the depot */
    char name[32];
    u64 reports;                            /* wrong things found in it */
    u64 fixes;                              /* repairs made to it */
};

/* Who allocated or freed an object (struct track of mm/slub.c); two lie behind each object with U. */
struct track {
    u64 address;                            /* return address of the call, 0 when it has not happened */
    u32 cpu;                                /* CPU that made it */
    u32 nr;                                 /* entries of stack that are used */
    u64 sequence;                           /* how many tracked calls there were before it, over all caches */
    u64 stack[16];                          /* return addresses, innermost first */
};

/* What debugging counts over all caches: reports + fixes is slub_kunit's slab_errors. */
struct slab_debug_state {
    u64 reports;                            /* wrong things found */
    u64 fixes;                              /* repairs made */
    u64 sequence;                           /* tracked calls so far */
    u64 quiet;                              /* not 0: count, but print no report (a test that causes them on purpose) */
};

/* Failures on purpose, as Linux's struct fault_attr: failslab for caches with A, fail_page_alloc. Off as
   long as probability and nth are 0. */
struct fault_attr {
    u32 probability;                        /* of 100 calls, how many fail */
    u32 interval;                           /* only each interval-th call may fail; 0 and 1: each */
    u64 times;                              /* how many may fail by probability; all ones: no limit */
    u64 calls;                              /* calls that were asked about */
    u64 nth;                                /* this many calls from now, one fails; 0: none does */
    u64 failed;                             /* calls that were made to fail */
    u64 state;                              /* of its random generator, splitmix64; at boot, the seed */
};

/* What stats of an allocator of somebody else fills in. */
struct allocator_stats {
    u64 in_use;                             /* allocations that callers hold */
    u64 free_bytes;                         /* bytes that it could still give out */
};

/* The free blocks of one order. */
struct free_area {
    struct list_head list;                  /* struct page links of the blocks' first frames */
    u64 nr_free;                            /* blocks on it */
};

/* What an interrupt or a panic leaves on the stack, in Linux's order. */
struct pt_regs {
    u64 r15;
    u64 r14;
    u64 r13;
    u64 r12;
    u64 rbp;
    u64 rbx;
    u64 r11;
    u64 r10;
    u64 r9;
    u64 r8;
    u64 rax;
    u64 rcx;
    u64 rdx;
    u64 rsi;
    u64 rdi;
    u64 vector;                             /* 0-31 exception, 32-47 IRQ 0-15, 256 for panic() */
    u64 error_code;                         /* 0 where the processor pushes none */
    u64 rip;
    u64 cs;
    u64 rflags;
    u64 rsp;
    u64 ss;
};

/* Written by panic before anything else, so that the last words survive even a broken console. */
struct panic_record {
    u64 active;                             /* 1 once the kernel has panicked */
    u64 vector;                             /* of the exception, PANIC_VECTOR when panic() was called */
    u64 address;                            /* CR2 for a page fault */
    struct pt_regs *regs;                   /* struct pt_regs at the fault or at the call */
    char message[256];                      /* the message, formatted */
};

/* What a trap calls; nonzero: dealt with, the interrupted code goes on. */
typedef int trap_handler(struct pt_regs *regs);

/* -- short words for kernel work ------------------------------------------------------------------------- */
/* The structure of which a member lies at pointer. */
#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

/* Each structure of a list that is linked through a member: list_for_each_entry(cache, &slab_caches, list) ... */
#define list_for_each_entry(entry, head, member)                                        \
    for (entry = container_of((head)->next, __typeof__(*entry), member);                \
         &entry->member != (head);                                                      \
         entry = container_of(entry->member.next, __typeof__(*entry), member))

static inline bool list_empty(const struct list_head *head)
{
    return head->next == head;
}

/* This CPU's own data: GS points at it. */
static inline struct percpu *this_cpu(void)
{
    struct percpu *self;

    __asm__ __volatile__("{movq %%gs:%c1, %0|mov %0, gs:%c1}" : "=r"(self) : "i"(offsetof(struct percpu, self)));
    return self;
}

static inline u8 inb(u16 port)
{
    u8 value;

    __asm__ __volatile__("{inb %1, %0|in %0, %1}" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void outb(u8 value, u16 port)
{
    __asm__ __volatile__("{outb %0, %1|out %1, %0}" : : "a"(value), "Nd"(port));
}

/* -- start.asm ------------------------------------------------------------------------------------------- */
/* The first instructions: from what a loader left to a processor in the state that the kernel wants. */

extern struct boot_info *boot_params;               /* what the loader told the kernel */

/* -- init.asm -------------------------------------------------------------------------------------------- */
/* From a bare processor to main() and out again. */

/* Wait for interrupts. */
void kernel_idle(void) __attribute__((__noreturn__));

/* Leave the machine by isa-debug-exit: QEMU's status is 2 * value + 1. Where no such device is, stop for
   good. */
void debug_exit(int value) __attribute__((__noreturn__));

/* -- traps.asm ------------------------------------------------------------------------------------------- */
/* Traps: the IDT, a stub for each of its 256 gates, and the one way in and out. */

/* From now on, int handler(struct pt_regs *) is called for a vector. It returns nonzero when the trap is
   dealt with and the interrupted code may go on (from pt_regs.rip, which it may change); 0 makes the
   kernel panic. It runs with interrupts off, and may turn them on.
   handler, or 0 for none
   returns the previous handler, or 0 */
trap_handler *set_trap_handler(unsigned vector, trap_handler *handler);

/* Call the handler of the trap's vector; panic when there is none, or when it declines. */
void trap_handle(struct pt_regs *regs);

/* -- irq.asm --------------------------------------------------------------------------------------------- */
/* Interrupt requests: the two 8259 controllers of a PC, the second behind input 2 of the first. */

/* Let requests of an input through; its handler is that of vector IRQ_BASE + irq.
   irq, 0 to 15 */
void irq_enable(unsigned irq);

/* Hold back the requests of an input.
   irq, 0 to 15 */
void irq_disable(unsigned irq);

/* Whether an interrupt is one that nobody asked for: a controller whose request vanished before the
   processor took it names its input 7, but has nothing in service (Intel 8259A data sheet, "default IR7").
   returns 1 for such a one, and it needs no further acknowledgement; 0 for a real interrupt */
int irq_is_spurious(unsigned irq);

/* Tell the controllers that an interrupt has been served. */
void irq_acknowledge(unsigned irq);

/* -- timer.asm ------------------------------------------------------------------------------------------- */
/* The timer tick: channel 0 of the 8254, which drives IRQ 0. */

/* One more tick.
   returns 1: handled */
int timer_interrupt(struct pt_regs *regs);

/* How many ticks there have been since boot.
   returns ticks */
u64 timer_ticks(void);

/* -- serial.asm ------------------------------------------------------------------------------------------ */
/* The console: a 16550 UART at SERIAL_PORT, polled. */

/* Send one byte as soon as the UART can take it. */
void serial_putc(int character);

/* Send size bytes. */
void serial_write(const void *data, u64 size);

/* End the current line, unless nothing stands on it yet. */
void serial_fresh_line(void);

/* -- printf.asm ------------------------------------------------------------------------------------------ */
/* Formatted text: kprintf to the console, snprintf to memory. */

/* Print on the console; one call's text stays in one piece.
   returns bytes printed */
int kprintf(const char *format, ...) __attribute__((__format__(__printf__, 1, 2)));

/* -- fault.asm ------------------------------------------------------------------------------------------- */
/* Exceptions that nobody handles, in words. */

/* An exception or interrupt that nobody handles. */
void trap_panic(struct pt_regs *regs) __attribute__((__noreturn__));

/* Whether an address lies in a stack's slot where no page is mapped: the stack has overflown.
   returns 1 or 0 */
int is_stack_guard(u64 address);

/* -- panic.asm ------------------------------------------------------------------------------------------- */
/* The end: panic(), and what it shares with the exceptions that nobody handles (fault.asm). */

/* The kernel's state is wrong: say why and where, and stop. May be called from anywhere, with any lock
   held. */
void panic(const char *format, ...) __attribute__((__noreturn__))
    __attribute__((__format__(__printf__, 1, 2)));

/* Fill panic_info. A panic inside a panic ends at once: only what is certain to work is used. */
void panic_begin(struct pt_regs *regs, u64 address);

/* Print what panic_info says, the registers and a backtrace, and leave the machine. */
void panic_report(struct pt_regs *regs) __attribute__((__noreturn__));

/* Whether an aligned u64 of a kernel stack lies there, one that can be read.
   returns 1 or 0 */
int is_stack(u64 address);

extern struct panic_record panic_info;              /* the last words */

/* -- string.asm ------------------------------------------------------------------------------------------ */
/* Memory and strings, as C has them. */

/* Copy as much as fits in size bytes; the destination always ends in a NUL (Linux, lib/string.c).
   returns bytes copied before the NUL, or -E2BIG when the source was cut, or size is 0 */
s64 strscpy(char *destination, const char *source, u64 size);

/* -- spinlock.asm ---------------------------------------------------------------------------------------- */
/* Spinlocks: a u32 that is 0 when free. */

/* Turn interrupts off and take the lock.
   lock, kept
   returns rflags as they were, for spin_unlock_irqrestore */
u64 spin_lock_irqsave(u32 *lock);

/* Release the lock, and turn interrupts on if they were on before.
   flags: what spin_lock_irqsave returned */
void spin_unlock_irqrestore(u32 *lock, u64 flags);

/* -- vm.asm ---------------------------------------------------------------------------------------------- */
/* Virtual memory: map, unmap and look up single 4 KiB pages in the kernel's own tables. */

#define PTE_PRESENT                0x1
#define PTE_WRITE                  0x2
#define PTE_USER                   0x4
#define PTE_LARGE                  0x80                 /* in a page directory: a page of 2 MiB */
#define PTE_NX                     0x8000000000000000ul /* no execution */
#define PTE_ADDRESS                0xffffffffff000ul    /* the frame that an entry points to */
/* what map_page's caller chooses; the rest is the address, and bit 7 */
#define PTE_CALLER                 0x800000000000067ful

/* Map one page. Tables that are missing are made; they stay when the page is unmapped.
   flags: PTE_WRITE, PTE_USER, PTE_NX and the like; PTE_PRESENT is implied
   returns 0; -EINVAL for an address that is no page's or flags that no caller may set, -EEXIST when
   something is mapped there, -ENOMEM without a page for a table */
int map_page(u64 address, u64 physical, u64 flags);

/* Take away one 4 KiB page.
   returns the physical address that was mapped; -EINVAL for an address that is no page's or lies in a 2
   MiB page, -EFAULT when nothing is mapped there */
u64 unmap_page(u64 address);

/* Find the entry that maps an address: that of a 4 KiB page, or of a larger one.
   returns entry, in the direct map, or 0 when nothing is mapped */
u64 *walk_page(u64 address);

/* -- list.asm -------------------------------------------------------------------------------------------- */
/* Doubly linked, circular lists, as in Linux's include/linux/list.h. */

/* Make the list empty: both links point at the head itself. */
void list_init(struct list_head *head);

/* Put an entry in front of the head: it becomes the last one. */
void list_add_tail(struct list_head *entry, struct list_head *head);

/* Put an entry behind the head: it becomes the first one. */
void list_add(struct list_head *entry, struct list_head *head);

/* Take an entry out. Its links are poisoned: whoever follows them faults at an address that tells why. */
void list_del(struct list_head *entry);

/* -- page_alloc.asm -------------------------------------------------------------------------------------- */
/* The page allocator: free memory as blocks of 2^order pages, in the manner of Linux's mm/page_alloc.c. */

/* Take 2^order pages in one piece, aligned to their own size, their contents as they were left.
   order, 0 to MAX_ORDER
   returns address in the direct map, or 0 when no block is large enough */
void *get_free_pages(unsigned int order);

/* Give back what get_free_pages(order) returned, and merge it with every free buddy. 0 is accepted. Pages
   that are a slab, a large allocation or a page table are not the caller's to give: a panic. */
void free_pages(void *address, unsigned int order);

/* Whoever had the block for a slab or a large allocation is done with it: it is a plain allocated block
   again, as free_pages wants it.
   page: struct page of its first frame */
void clear_page_use(struct page *page);

/* The frame that an address of the direct map lies in.
   returns struct page, or 0 when there is no RAM at that address */
struct page *virt_to_page(const void *address);

/* Where a frame lies in the direct map.
   returns address */
void *page_address(const struct page *page);

extern struct page *mem_map;                        /* max_pfn of them, one for each frame */
extern u64 max_pfn;                                 /* frames of RAM */
extern struct free_area free_areas[MAX_ORDER + 1];  /* the free blocks of each order */

/* -- random.asm ------------------------------------------------------------------------------------------ */
/* Numbers that look random and are the same in every run: splitmix64 (Steele, Lea and Flood, OOPSLA 2014),
   from the seed that the loader hands over. */

/* The next number of a generator.
   returns 64 bits */
u64 random_next(u64 *state);

/* A number from 0 to limit - 1: the high half of the product of limit and the next 64 bits.
   returns number */
u64 random_below(u64 *state, u64 limit);

/* -- inject.asm ------------------------------------------------------------------------------------------ */
/* Failures on purpose, as Linux's lib/fault-inject.c: whoever tests an error path fills in a struct
   fault_attr. */

/* Whether this call is one that must fail.
   returns 1 or 0 */
int should_fail(struct fault_attr *attr);

extern struct fault_attr failslab;                  /* for caches with SLAB_FAILSLAB */
extern struct fault_attr fail_page_alloc;           /* for get_free_pages */

/* -- slab_layout.asm ------------------------------------------------------------------------------------- */
/* How a cache cuts its slabs, as calculate_sizes() and calculate_order() do in Linux's mm/slub.c. */

/* From object_size, align, flags and ctor compute everything else that describes the cache's slabs. */
void slab_layout(struct kmem_cache *cache);

/* -- freelist.asm ---------------------------------------------------------------------------------------- */
/* Free pointers, encoded or plain, and the order in which a new slab's objects are linked. */

/* The free object behind this one.
   returns object, or 0 at the end */
void *get_freepointer(struct kmem_cache *cache, void *object);

/* next: the free object behind it, or 0 */
void set_freepointer(struct kmem_cache *cache, void *object, void *next);

/* With freelist_hardened, give a new cache its secret. */
void freelist_secret(struct kmem_cache *cache);

/* With freelist_random, make the order in which this cache's objects are linked: a permutation of their
   numbers (Fisher and Yates). A cache for which there is no memory keeps the order of addresses. */
void freelist_random_seq(struct kmem_cache *cache);

/* Link a new slab's objects in the cache's random order, from a random place of it on (Linux's
   shuffle_freelist).
   cache with random_seq
   first object */
void freelist_shuffle(struct kmem_cache *cache, struct page *page, void *first);

/* -- slab.asm -------------------------------------------------------------------------------------------- */
/* One slab: made of pages, handed out object by object, and given back. */

/* Take pages, cut them into objects, construct these and link them in address order. The slab is on no
   list yet. Called without the cache's lock: a constructor may allocate.
   returns struct page of the first frame, or 0 when no pages are left */
struct page *slab_create(struct kmem_cache *cache);

/* Put a new slab on the list of empty ones. Called without the cache's lock. */
void slab_add(struct kmem_cache *cache, struct page *page);

/* Give the pages of a slab back. It is on no list, and all its objects are in. The cache's lock is held.
   page: struct page of its first frame */
void slab_destroy(struct kmem_cache *cache, struct page *page);

/* Take a slab off the list it is on, if any, and put it at the head of another. The cache's lock is held.
   list: SLAB_LIST_*, SLAB_LIST_NONE included */
void slab_move(struct kmem_cache *cache, struct page *page, int list);

/* The slab that the next object comes from: a partial one, else an empty one. The cache's lock is held.
   returns struct page, or 0 when every slab is full */
struct page *slab_with_free_object(struct kmem_cache *cache);

/* Take the first free object of a slab that has one. The cache's lock is held.
   returns object */
void *slab_take(struct kmem_cache *cache, struct page *page);

/* Put an object back into its slab. A slab that is empty now is kept, or given back when enough are kept
   already. The cache's lock is held. */
void slab_put(struct kmem_cache *cache, void *object);

/* -- fastpath.asm ---------------------------------------------------------------------------------------- */
/* The fast paths: an allocation pops an object off this CPU's magazine, a free pushes one, with no lock
   and no cli. */

/* Take an object from this CPU's magazine; refill it when it is empty.
   returns object, or 0 when no page is left */
void *kmem_cache_alloc(struct kmem_cache *cache);

/* The same, where the caller needs only the first size bytes of the object.
   size, at most object_size
   returns object, or 0 when no page is left */
void *kmem_cache_alloc_sized(struct kmem_cache *cache, size_t size);

/* The same, filled with zeros. A cache with a constructor has none: zeros would undo its work.
   returns object, or 0 when no page is left or the cache has a constructor */
void *kmem_cache_zalloc(struct kmem_cache *cache);

/* Put an object into this CPU's magazine; make room when it is full. 0 is accepted. */
void kmem_cache_free(struct kmem_cache *cache, void *object);

/* -- magazine.asm ---------------------------------------------------------------------------------------- */
/* Magazines: each CPU's own stacks of free objects in front of the slabs (Bonwick and Adams, "Magazines
   and Vmem", USENIX 2001). */

/* Pop an object from the loaded magazine; when it is empty, from the previous one, a full one of the
   depot, or after a refill from one slab. The cache's lock is held.
   cpu: GS offset of struct kmem_cache_cpu
   returns object, or 0 when every slab is full */
void *magazine_find_object(struct kmem_cache *cache, u64 cpu);

/* See to it that the loaded magazine has room: by the previous one, or by an empty one of the depot. The
   cache's lock is held.
   cpu: GS offset of struct kmem_cache_cpu
   returns 1, or 0 when there is no magazine with room */
bool magazine_find_room(struct kmem_cache *cache, u64 cpu);

/* Load a magazine; the one that was loaded becomes the previous one. Interrupts are off.
   cpu: GS offset of struct kmem_cache_cpu */
void magazine_load(struct kmem_cache *cache, u64 cpu, struct magazine *magazine);

/* Fill the loaded magazine, which is empty, with objects of one slab; what the slab would have given first
   is on top. Does nothing when every slab is full. The cache's lock is held.
   cpu: GS offset of struct kmem_cache_cpu */
void magazine_refill(struct kmem_cache *cache, u64 cpu);

/* Put every object of a magazine that is not loaded back into its slab. The cache's lock is held. */
void magazine_flush(struct kmem_cache *cache, struct magazine *magazine);

/* Give this CPU its two magazines for a cache that uses magazines and has none here yet. Called without a
   lock.
   returns GS offset of its struct kmem_cache_cpu, or 0 when the cache goes without */
u64 magazine_prepare(struct kmem_cache *cache);

/* returns an empty magazine, or 0 when no page is left */
struct magazine *magazine_create(void);

/* Give an empty magazine back. */
void magazine_release(struct magazine *magazine);

/* count: how many are on it */
void depot_push(struct magazine **list, struct magazine *magazine, u32 *count);

/* Make a struct kmem_cache_cpu one without magazines.
   cpu: GS offset of struct kmem_cache_cpu */
void magazine_disable(u64 cpu);

/* Put every object of this CPU's magazines and of the depot back into the slabs, and give the magazines
   back. */
void magazine_drain(struct kmem_cache *cache);

/* -- slowpath.asm ---------------------------------------------------------------------------------------- */
/* The slow paths: what an allocation does when the loaded magazine is empty, and a free when it is full,
   or when there are no magazines at all. */

/* The slow path of every allocation: from another magazine, else from the slabs, else from a new slab.
   size that the caller needs
   returns object, or 0 when no page is left */
void *slab_alloc(struct kmem_cache *cache, size_t size);

/* The slow path of every free: into another magazine, else into its slab. */
void slab_free(struct kmem_cache *cache, void *object);

/* -- kmem_cache.asm -------------------------------------------------------------------------------------- */
/* Object caches: made, shrunk and destroyed. */

/* Make a cache of objects of one size.
   name (31 bytes are kept; at least one, none of them a control character, which would break the lines of
   slabinfo; no two caches may share one)
   size, 1 to SLAB_MAX_OBJECT
   align: alignment, 0 or a power of two up to PAGE_SIZE
   flags among SLAB_CREATE_FLAGS
   ctor: constructor or 0
   returns cache, or 0 when an argument is wrong, the name is taken, or no page is left */
struct kmem_cache *kmem_cache_create(const char *name, size_t size, size_t align, u32 flags,
    void (*ctor)(void *));

/* Fill in a struct kmem_cache and put it at the end of slab_caches.
   cache, its contents unknown
   returns cache, or 0 when the name is taken */
struct kmem_cache *kmem_cache_setup(struct kmem_cache *cache, const char *name, u32 size, u32 align,
    u32 flags, void *ctor);

/* The cache of that name. slab_caches_lock is held.
   returns cache, or 0 */
struct kmem_cache *kmem_cache_find(const char *name);

/* Drain this CPU's magazines and the depot, and give back every empty slab.
   returns 0 when the cache has no slab left, else 1 */
int kmem_cache_shrink(struct kmem_cache *cache);

/* Give back everything that a cache has, itself included. 0 is accepted.
   returns 0; -EBUSY when callers still hold objects, -EINVAL for a cache made at boot: it lives on */
long kmem_cache_destroy(struct kmem_cache *cache);

/* Give a cache its slot in the per-CPU data; slot 0 when it goes without magazines, or when all slots are
   taken. slab_caches_lock is held. */
void percpu_slot_take(struct kmem_cache *cache);

/* Take a cache's slot back; slot 0 belongs to nobody. slab_caches_lock is held.
   cache, drained */
void percpu_slot_release(struct kmem_cache *cache);

extern struct list_head slab_caches;                /* every cache, through kmem_cache.list */
extern u32 slab_caches_lock;                        /* guards slab_caches */

/* -- bulk.asm -------------------------------------------------------------------------------------------- */
/* Many objects at once: one lock for all of them, straight between the caller's array, the loaded magazine
   and the slabs. */

/* Take count objects, or none.
   array of count pointers
   returns count; 0 when there is no memory for all of them */
int kmem_cache_alloc_bulk(struct kmem_cache *cache, size_t count, void **array);

/* Free count objects.
   array of count pointers */
void kmem_cache_free_bulk(struct kmem_cache *cache, size_t count, void **array);

/* -- kmalloc.asm ----------------------------------------------------------------------------------------- */
/* kmalloc and its kin: caches of general sizes, and whole pages beyond them. */

/* Memory of at least size bytes, aligned to 8, and to size where that is a power of two.
   returns pointer; ZERO_SIZE_PTR for size 0; 0 when size is beyond KMALLOC_MAX_SIZE or no page is left */
void *kmalloc(size_t size);

/* kmalloc, and every byte that ksize counts is 0.
   returns pointer, as kmalloc's */
void *kzalloc(size_t size);

/* Free what kmalloc or any cache gave. 0 and ZERO_SIZE_PTR are accepted; anything else that is not slab
   memory or a large allocation is a panic. */
void kfree(const void *pointer);

/* by size, ascending */
extern struct kmem_cache *kmalloc_caches[KMALLOC_CACHES];

/* -- krealloc.asm ---------------------------------------------------------------------------------------- */
/* The size of an allocation: what it is, and changing it, as ksize() and __do_krealloc() of Linux's
   mm/slab_common.c. */

/* How many bytes the caller may use, which may be more than it asked for. Whoever asks may use them all
   from then on.
   pointer that kmalloc returned
   returns bytes; 0 for 0 and ZERO_SIZE_PTR */
size_t ksize(const void *pointer);

/* Change the size of an allocation; its bytes up to the smaller size are kept. With GFP_ZERO, and if it
   always was called with GFP_ZERO, bytes that are new to the caller are 0.
   pointer (0 or ZERO_SIZE_PTR: like kmalloc)
   size (0: like kfree)
   flags: 0 or GFP_ZERO
   returns pointer, perhaps a new one; 0 when there is no memory, and the old one is untouched */
void *krealloc(void *pointer, size_t size, u32 flags);

/* -- slabinfo.asm ---------------------------------------------------------------------------------------- */
/* The allocator's own account, in the columns of Linux's /proc/slabinfo. */

/* Print a line for each cache. Objects in magazines count as active, for they are out of their slabs. */
void slabinfo(void);

/* -- slab_options.asm ------------------------------------------------------------------------------------ */
/* The boot parameter slab_debug, in Linux's syntax (Documentation/admin-guide/mm/slab.rst). */

/* What slab_debug says of a cache.
   returns SLAB_* flags */
u32 slab_debug_flags(const char *name);

/* Decide on a new cache's flags, and lay its slabs out.
   cache with name, object_size, align and ctor
   flags that its maker wants */
void slab_debug_layout(struct kmem_cache *cache, u32 flags);

/* -- slab_object.asm ------------------------------------------------------------------------------------- */
/* One object under debugging: where its parts lie, what its bytes are, and who had it. */

/* Where the tracks of an object begin: behind its red zone and a free pointer that lies outside of it.
   returns offset from the object's first byte */
u32 slab_info_end(const struct kmem_cache *cache);

/* The bytes that were asked for; object_size where that is not kept, or what is kept cannot be.
   returns bytes */
u32 get_orig_size(struct kmem_cache *cache, const void *object);

/* Remember the bytes that were asked for, where that is kept. */
void set_orig_size(struct kmem_cache *cache, void *object, u32 size);

/* Give every byte of an object that debugging watches its value.
   value: SLUB_RED_ACTIVE or SLUB_RED_INACTIVE */
void init_object(struct kmem_cache *cache, void *object, int value);

/* Prepare an object of a new slab: it is free, and nobody has had it. */
void setup_object(struct kmem_cache *cache, void *object);

/* The return addresses of a chain of frames, innermost first, as far as the chain makes sense.
   entries: room for TRACK_FRAMES entries
   frame (what RBP points at)
   returns how many */
u32 save_stack(u64 *entries, const u64 *frame);

/* Write down who allocates or frees an object, with U.
   which: 0 for the allocation, 1 for the free
   frame of the allocator's function, whose return address lies in its caller */
void set_track(struct kmem_cache *cache, void *object, int which, const u64 *frame);

extern struct slab_debug_state slab_debug_state;    /* reports and repairs, counted */

/* -- slab_dump.asm --------------------------------------------------------------------------------------- */
/* What reports are made of: bytes, stacks, and who had an object. */

/* Who had the object last, with U. */
void print_tracking(struct kmem_cache *cache, const void *object);

/* entries: return addresses
   count: how many, at most TRACK_FRAMES are printed */
void print_stack(const u64 *entries, u32 count);

/* Bytes, 16 on a line, as numbers and as characters (Linux's print_hex_dump). */
void print_section(const char *label, const u8 *bytes, u32 length);

/* Print a line for an allocation or a free, with T; for a free, the object's bytes too.
   freed: 0 for an allocation, 1 for a free */
void slab_trace(struct kmem_cache *cache, struct page *page, void *object, bool freed, const u64 *frame);

/* -- slab_report.asm ------------------------------------------------------------------------------------- */
/* Reports of what is wrong with a heap, in the form of Linux's mm/slub.c. */

/* Report something wrong with an object. */
void object_err(struct kmem_cache *cache, struct page *page, void *object, const char *reason);

void print_slab_info(const struct page *page);

/* All that is known of an object: its history, its slab, its bytes. */
void print_trailer(struct kmem_cache *cache, struct page *page, const void *object);

/* -- slab_check.asm -------------------------------------------------------------------------------------- */
/* Judging one object, as check_object() does in Linux's mm/slub.c. */

/* The first and the last byte that is not value.
   returns first, or 0 when there is none */
void *find_damage(const u8 *start, u64 bytes, u8 value);

/* Where the padding of an object begins.
   returns offset from the object's first byte */
u32 slab_object_end(const struct kmem_cache *cache);

/* The first object of a slab.
   returns object */
void *slab_first_object(const struct kmem_cache *cache, const struct page *page);

/* The object in whose place an address lies, its left red zone counted in.
   returns index, beyond the last object's for an address that lies in none */
int slab_object_index(const struct kmem_cache *cache, const struct page *page, const void *address);

/* Whether a pointer is one that a free list of this slab may hold: 0, or an object of it.
   returns 1 or 0 */
int check_valid_pointer(const struct kmem_cache *cache, const struct page *page, const void *object);

/* Judge the bytes of an object that debugging watches, and its free pointer.
   value: SLUB_RED_ACTIVE for a live object, SLUB_RED_INACTIVE for a free one
   returns 1, or 0 when something was wrong */
int check_object(struct kmem_cache *cache, struct page *page, void *object, int value);

/* -- slab_judge.asm -------------------------------------------------------------------------------------- */
/* Judging one slab, its numbers and its free list, as check_slab() and on_freelist() do in Linux's
   mm/slub.c. */

/* Judge the numbers of a slab, and the bytes behind its last object.
   returns 1, or 0 when its numbers cannot be */
int check_slab(struct kmem_cache *cache, struct page *page);

/* Whether an object is on its slab's free list. The list is judged on the way, and against the slab's
   counts: what cannot be is cut off or corrected. The cache's lock is held.
   object, or 0: judge the whole list
   returns 1 when the object was found, or, without one, when the list can be walked; else 0 */
int on_freelist(struct kmem_cache *cache, struct page *page, const void *object);

/* Forget a slab's free list: nothing of it is handed out any more. The cache's lock is held.
   fix: what to say */
void slab_give_up(struct kmem_cache *cache, struct page *page, const char *fix);

/* Put a slab on the list that its counts ask for, after they have been corrected. The cache's lock is
   held. */
void slab_relist(struct kmem_cache *cache, struct page *page);

/* -- slab_validate.asm ----------------------------------------------------------------------------------- */
/* Judging a whole cache, and the objects that are left when it is destroyed. */

/* Judge every slab of a cache and every object in them; report what is wrong, and repair what can be
   (Linux's validate_slab_cache).
   returns reports and repairs, as slub_kunit counts its slab_errors */
int kmem_cache_validate(struct kmem_cache *cache);

/* Report every object that callers still hold of a cache that is to be destroyed, slab by slab. */
void list_remaining(struct kmem_cache *cache);

/* -- slab_consistency.asm -------------------------------------------------------------------------------- */
/* The letter F: what is judged before an object is handed out, and before it is taken back. */

/* Judge a slab and its first free object before that is handed out.
   returns 1 when all is well, else 0 */
int alloc_consistency_checks(struct kmem_cache *cache, struct page *page);

/* Judge what is to be freed, and its slab. Linux goes on after a pointer into an object and after a second
   free; here they end the run, after the report.
   returns 1 when all is well, 0 when it must not be freed */
int free_consistency_checks(struct kmem_cache *cache, struct page *page, void *object);

/* -- slab_debug.asm -------------------------------------------------------------------------------------- */
/* Allocating and freeing under debugging: caches with any letter of slab_debug have no magazines, and
   every call comes here from its slow path. */

/* Give every byte of a new slab the value that debugging expects.
   first object */
void setup_slab(struct kmem_cache *cache, struct page *page, void *first);

/* slab_alloc for a cache under debugging.
   size that the caller asked for
   returns object, or 0 when no page is left, or the call was made to fail */
void *slab_alloc_debug(struct kmem_cache *cache, size_t size);

/* slab_free for a cache under debugging. An object that is damaged is reported and not freed; what is no
   object, or is free already, is a panic with F. */
void slab_free_debug(struct kmem_cache *cache, void *object);

/* kmem_cache_alloc_bulk for a cache under debugging: one by one.
   array of count pointers
   returns count; 0 when there is no memory for all of them */
int slab_alloc_bulk_debug(struct kmem_cache *cache, size_t count, void **array);

/* kmem_cache_free_bulk for a cache under debugging: one by one.
   array of count pointers */
void slab_free_bulk_debug(struct kmem_cache *cache, size_t count, void **array);

/* -- the compiler lays the structures out as the kernel does --------------------------------------------- */
#if defined(__cplusplus) && __cplusplus >= 201103L
#define SANDBOX_CHECK(condition) static_assert(condition, #condition)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define SANDBOX_CHECK(condition) _Static_assert(condition, #condition)
#else
#define SANDBOX_CHECK(condition) struct list_head
#endif
#define SANDBOX_SIZE(type, size) SANDBOX_CHECK(sizeof(struct type) == (size))
#define SANDBOX_FIELD(type, field, offset, size) \
    SANDBOX_CHECK(offsetof(struct type, field) == (offset) && sizeof(((struct type *)0)->field) == (size))

SANDBOX_SIZE(list_head, 0x10);
SANDBOX_FIELD(list_head, next, 0x0, 0x8);
SANDBOX_FIELD(list_head, prev, 0x8, 0x8);
SANDBOX_SIZE(memory_region, 0x18);
SANDBOX_FIELD(memory_region, base, 0x0, 0x8);
SANDBOX_FIELD(memory_region, length, 0x8, 0x8);
SANDBOX_FIELD(memory_region, type, 0x10, 0x4);
SANDBOX_FIELD(memory_region, reserved, 0x14, 0x4);
SANDBOX_SIZE(boot_info, 0x1d0);
SANDBOX_FIELD(boot_info, magic, 0x0, 0x8);
SANDBOX_FIELD(boot_info, ram_size, 0x8, 0x8);
SANDBOX_FIELD(boot_info, cr3, 0x10, 0x8);
SANDBOX_FIELD(boot_info, loader_end, 0x18, 0x8);
SANDBOX_FIELD(boot_info, kernel_end, 0x20, 0x8);
SANDBOX_FIELD(boot_info, program_start, 0x28, 0x8);
SANDBOX_FIELD(boot_info, program_end, 0x30, 0x8);
SANDBOX_FIELD(boot_info, main, 0x38, 0x8);
SANDBOX_FIELD(boot_info, stack_top, 0x40, 0x8);
SANDBOX_FIELD(boot_info, ist_top, 0x48, 0x18);
SANDBOX_FIELD(boot_info, flags, 0x60, 0x8);
SANDBOX_FIELD(boot_info, hz, 0x68, 0x4);
SANDBOX_FIELD(boot_info, empty_slab_limit, 0x6c, 0x4);
SANDBOX_FIELD(boot_info, seed, 0x70, 0x8);
SANDBOX_FIELD(boot_info, freelist_hardened, 0x78, 0x4);
SANDBOX_FIELD(boot_info, freelist_random, 0x7c, 0x4);
SANDBOX_FIELD(boot_info, regions, 0x80, 0x8);
SANDBOX_FIELD(boot_info, map, 0x88, 0xc0);
SANDBOX_FIELD(boot_info, slab_debug, 0x148, 0x80);
SANDBOX_FIELD(boot_info, freelist_seed, 0x1c8, 0x8);
SANDBOX_SIZE(page, 0x40);
SANDBOX_FIELD(page, flags, 0x0, 0x4);
SANDBOX_FIELD(page, order, 0x4, 0x1);
SANDBOX_FIELD(page, list, 0x5, 0x1);
SANDBOX_FIELD(page, inuse, 0x6, 0x2);
SANDBOX_FIELD(page, objects, 0x8, 0x2);
SANDBOX_FIELD(page, reserved, 0xa, 0x2);
SANDBOX_FIELD(page, colour, 0xc, 0x4);
SANDBOX_FIELD(page, next, 0x10, 0x8);
SANDBOX_FIELD(page, prev, 0x18, 0x8);
SANDBOX_FIELD(page, cache, 0x20, 0x8);
SANDBOX_FIELD(page, freelist, 0x28, 0x8);
SANDBOX_FIELD(page, head, 0x30, 0x8);
#ifndef __cplusplus
SANDBOX_FIELD(page, private, 0x38, 0x8);
#endif
SANDBOX_SIZE(magazine, 0x100);
SANDBOX_FIELD(magazine, next, 0x0, 0x8);
SANDBOX_FIELD(magazine, rounds, 0x8, 0x8);
SANDBOX_FIELD(magazine, bottom, 0x10, 0x8);
SANDBOX_FIELD(magazine, objects, 0x18, 0xe8);
SANDBOX_SIZE(magazine_size, 0x8);
SANDBOX_FIELD(magazine_size, largest, 0x0, 0x4);
SANDBOX_FIELD(magazine_size, rounds, 0x4, 0x4);
SANDBOX_SIZE(kmalloc_info, 0x10);
SANDBOX_FIELD(kmalloc_info, name, 0x0, 0x8);
SANDBOX_FIELD(kmalloc_info, size, 0x8, 0x4);
SANDBOX_FIELD(kmalloc_info, align, 0xc, 0x4);
SANDBOX_SIZE(kmem_cache_cpu, 0x40);
SANDBOX_FIELD(kmem_cache_cpu, top, 0x0, 0x8);
SANDBOX_FIELD(kmem_cache_cpu, limit, 0x8, 0x8);
SANDBOX_FIELD(kmem_cache_cpu, loaded, 0x10, 0x8);
SANDBOX_FIELD(kmem_cache_cpu, previous, 0x18, 0x8);
SANDBOX_FIELD(kmem_cache_cpu, alloc_fastpath, 0x20, 0x8);
SANDBOX_FIELD(kmem_cache_cpu, free_fastpath, 0x28, 0x8);
SANDBOX_FIELD(kmem_cache_cpu, unused, 0x30, 0x10);
SANDBOX_SIZE(percpu, 0x4000);
SANDBOX_FIELD(percpu, reserved, 0x0, 0x8);
SANDBOX_FIELD(percpu, self, 0x8, 0x8);
SANDBOX_FIELD(percpu, cpu, 0x10, 0x4);
SANDBOX_FIELD(percpu, interrupt_depth, 0x14, 0x4);
SANDBOX_FIELD(percpu, ticks, 0x18, 0x8);
SANDBOX_FIELD(percpu, interrupts, 0x20, 0x8);
SANDBOX_FIELD(percpu, restarts, 0x28, 0x8);
SANDBOX_FIELD(percpu, unused, 0x30, 0x10);
SANDBOX_FIELD(percpu, slots, 0x40, 0x3fc0);
SANDBOX_SIZE(kmem_cache, 0x120);
SANDBOX_FIELD(kmem_cache, cpu, 0x0, 0x8);
SANDBOX_FIELD(kmem_cache, lock, 0x8, 0x4);
SANDBOX_FIELD(kmem_cache, flags, 0xc, 0x4);
SANDBOX_FIELD(kmem_cache, object_size, 0x10, 0x4);
SANDBOX_FIELD(kmem_cache, size, 0x14, 0x4);
SANDBOX_FIELD(kmem_cache, align, 0x18, 0x4);
SANDBOX_FIELD(kmem_cache, offset, 0x1c, 0x4);
SANDBOX_FIELD(kmem_cache, metadata, 0x20, 0x4);
SANDBOX_FIELD(kmem_cache, red_left_pad, 0x24, 0x4);
SANDBOX_FIELD(kmem_cache, order, 0x28, 0x4);
SANDBOX_FIELD(kmem_cache, objects, 0x2c, 0x4);
SANDBOX_FIELD(kmem_cache, colour, 0x30, 0x4);
SANDBOX_FIELD(kmem_cache, colour_step, 0x34, 0x4);
SANDBOX_FIELD(kmem_cache, colour_next, 0x38, 0x4);
SANDBOX_FIELD(kmem_cache, empty_limit, 0x3c, 0x4);
SANDBOX_FIELD(kmem_cache, ctor, 0x40, 0x8);
SANDBOX_FIELD(kmem_cache, random, 0x48, 0x8);
SANDBOX_FIELD(kmem_cache, random_seq, 0x50, 0x8);
SANDBOX_FIELD(kmem_cache, partial, 0x58, 0x10);
SANDBOX_FIELD(kmem_cache, full, 0x68, 0x10);
SANDBOX_FIELD(kmem_cache, empty, 0x78, 0x10);
SANDBOX_FIELD(kmem_cache, nr_partial, 0x88, 0x4);
SANDBOX_FIELD(kmem_cache, nr_full, 0x8c, 0x4);
SANDBOX_FIELD(kmem_cache, nr_empty, 0x90, 0x4);
SANDBOX_FIELD(kmem_cache, rounds, 0x94, 0x4);
SANDBOX_FIELD(kmem_cache, depot_full, 0x98, 0x8);
SANDBOX_FIELD(kmem_cache, depot_empty, 0xa0, 0x8);
SANDBOX_FIELD(kmem_cache, nr_depot_full, 0xa8, 0x4);
SANDBOX_FIELD(kmem_cache, nr_depot_empty, 0xac, 0x4);
SANDBOX_FIELD(kmem_cache, list, 0xb0, 0x10);
SANDBOX_FIELD(kmem_cache, alloc_slowpath, 0xc0, 0x8);
SANDBOX_FIELD(kmem_cache, free_slowpath, 0xc8, 0x8);
SANDBOX_FIELD(kmem_cache, alloc_slab, 0xd0, 0x8);
SANDBOX_FIELD(kmem_cache, free_slab, 0xd8, 0x8);
SANDBOX_FIELD(kmem_cache, failed, 0xe0, 0x8);
SANDBOX_FIELD(kmem_cache, exchanges, 0xe8, 0x8);
SANDBOX_FIELD(kmem_cache, name, 0xf0, 0x20);
SANDBOX_FIELD(kmem_cache, reports, 0x110, 0x8);
SANDBOX_FIELD(kmem_cache, fixes, 0x118, 0x8);
SANDBOX_SIZE(track, 0x98);
SANDBOX_FIELD(track, address, 0x0, 0x8);
SANDBOX_FIELD(track, cpu, 0x8, 0x4);
SANDBOX_FIELD(track, nr, 0xc, 0x4);
SANDBOX_FIELD(track, sequence, 0x10, 0x8);
SANDBOX_FIELD(track, stack, 0x18, 0x80);
SANDBOX_SIZE(slab_debug_state, 0x20);
SANDBOX_FIELD(slab_debug_state, reports, 0x0, 0x8);
SANDBOX_FIELD(slab_debug_state, fixes, 0x8, 0x8);
SANDBOX_FIELD(slab_debug_state, sequence, 0x10, 0x8);
SANDBOX_FIELD(slab_debug_state, quiet, 0x18, 0x8);
SANDBOX_SIZE(fault_attr, 0x30);
SANDBOX_FIELD(fault_attr, probability, 0x0, 0x4);
SANDBOX_FIELD(fault_attr, interval, 0x4, 0x4);
SANDBOX_FIELD(fault_attr, times, 0x8, 0x8);
SANDBOX_FIELD(fault_attr, calls, 0x10, 0x8);
SANDBOX_FIELD(fault_attr, nth, 0x18, 0x8);
SANDBOX_FIELD(fault_attr, failed, 0x20, 0x8);
SANDBOX_FIELD(fault_attr, state, 0x28, 0x8);
SANDBOX_SIZE(allocator_stats, 0x10);
SANDBOX_FIELD(allocator_stats, in_use, 0x0, 0x8);
SANDBOX_FIELD(allocator_stats, free_bytes, 0x8, 0x8);
SANDBOX_SIZE(free_area, 0x18);
SANDBOX_FIELD(free_area, list, 0x0, 0x10);
SANDBOX_FIELD(free_area, nr_free, 0x10, 0x8);
SANDBOX_SIZE(pt_regs, 0xb0);
SANDBOX_FIELD(pt_regs, r15, 0x0, 0x8);
SANDBOX_FIELD(pt_regs, r14, 0x8, 0x8);
SANDBOX_FIELD(pt_regs, r13, 0x10, 0x8);
SANDBOX_FIELD(pt_regs, r12, 0x18, 0x8);
SANDBOX_FIELD(pt_regs, rbp, 0x20, 0x8);
SANDBOX_FIELD(pt_regs, rbx, 0x28, 0x8);
SANDBOX_FIELD(pt_regs, r11, 0x30, 0x8);
SANDBOX_FIELD(pt_regs, r10, 0x38, 0x8);
SANDBOX_FIELD(pt_regs, r9, 0x40, 0x8);
SANDBOX_FIELD(pt_regs, r8, 0x48, 0x8);
SANDBOX_FIELD(pt_regs, rax, 0x50, 0x8);
SANDBOX_FIELD(pt_regs, rcx, 0x58, 0x8);
SANDBOX_FIELD(pt_regs, rdx, 0x60, 0x8);
SANDBOX_FIELD(pt_regs, rsi, 0x68, 0x8);
SANDBOX_FIELD(pt_regs, rdi, 0x70, 0x8);
SANDBOX_FIELD(pt_regs, vector, 0x78, 0x8);
SANDBOX_FIELD(pt_regs, error_code, 0x80, 0x8);
SANDBOX_FIELD(pt_regs, rip, 0x88, 0x8);
SANDBOX_FIELD(pt_regs, cs, 0x90, 0x8);
SANDBOX_FIELD(pt_regs, rflags, 0x98, 0x8);
SANDBOX_FIELD(pt_regs, rsp, 0xa0, 0x8);
SANDBOX_FIELD(pt_regs, ss, 0xa8, 0x8);
SANDBOX_SIZE(panic_record, 0x120);
SANDBOX_FIELD(panic_record, active, 0x0, 0x8);
SANDBOX_FIELD(panic_record, vector, 0x8, 0x8);
SANDBOX_FIELD(panic_record, address, 0x10, 0x8);
SANDBOX_FIELD(panic_record, regs, 0x18, 0x8);
SANDBOX_FIELD(panic_record, message, 0x20, 0x100);

#undef SANDBOX_FIELD
#undef SANDBOX_SIZE
#undef SANDBOX_CHECK

#ifdef __cplusplus
}
#endif

#endif /* SANDBOX_H */
