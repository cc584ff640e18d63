/* The end, when all is done, as a return from main has it: the result is written down, the machine is left. */
#include <stdlib.h>
#include <unistd.h>

#include <sandbox.h>

/* kernel_asm/init.asm */
extern u64 main_result;
extern u8 main_returned;

_Noreturn void _exit(int status)
{
    main_result = (u32)status;
    main_returned = 1;
    debug_exit(status == 0 ? DEBUG_EXIT_SUCCESS : DEBUG_EXIT_FAILURE);
}

_Noreturn void _Exit(int status)
{
    _exit(status);
}

_Noreturn void exit(int status)
{
    _exit(status);
}
