/* console.h: the kernel's console, one piece of text at a time. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <sandbox.h>

extern u32 console_lock;                    /* kernel_asm/printf.asm */

/* Keep everybody else off the console; what is returned goes to unlock_console(). */
static inline u64 lock_console(void)
{
    return spin_lock_irqsave(&console_lock);
}

static inline void unlock_console(u64 flags)
{
    spin_unlock_irqrestore(&console_lock, flags);
}

#endif
