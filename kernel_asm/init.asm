# From a bare processor to main() and out again.

# The value of each callee-saved register while main runs, in the order of main_registers. rbp = 0 ends backtraces.
.set MAIN_RBX, 0x5ca1ab1e00000001
.set MAIN_RBP, 0
.set MAIN_R12, 0x5ca1ab1e0000000c
.set MAIN_R13, 0x5ca1ab1e0000000d
.set MAIN_R14, 0x5ca1ab1e0000000e
.set MAIN_R15, 0x5ca1ab1e0000000f

.text

# noreturn kernel_main(void)
# Bring up every part in the order in which they need each other, run the program's main, and exit with its result.
kernel_main:
    call traps_init
    call serial_init
    mov rax, [rip + boot_params]
    movabs rcx, BOOT_MAGIC
    cmp [rax + boot_info.magic], rcx
    jne .Lkernel_main_stranger
    call irq_init
    call page_alloc_init
    call slab_init
    call timer_init
    sti

# Everything is up. A debugger or a test that wants a fresh kernel stops here; without a program, the kernel waits.
kernel_ready:
    mov rax, [rip + boot_params]
    mov rax, [rax + boot_info.main]     # rax = main, or 0
    test rax, rax
    jz kernel_idle

    # 1. main, with a known value in every register that it must keep
    mov [rip + main_stack], rsp
    mov rbx, MAIN_RBX
    mov r12, MAIN_R12
    mov r13, MAIN_R13
    mov r14, MAIN_R14
    mov r15, MAIN_R15
    xor ebp, ebp
    xor edi, edi                        # int main(int argc, char **argv) has no arguments here
    lea rsi, [rip + main_arguments]
    call rax

    # 2. what has come back
    mov [rip + main_result], rax
    mov byte ptr [rip + main_returned], 1
    mov rdx, rsp                        # rdx = its stack pointer
    mov rsp, [rip + main_stack]
    push r15
    push r14
    push r13
    push r12
    push rbx
    push rbp
    push rdx
    push rax                            # its result; rsp is a multiple of 16 again
    cld
    xor ebp, ebp
    lea rdi, [rsp + 8]
    call check_main_registers

    # 3. out
    pop rax
    mov edi, EXIT_SUCCESS
    mov ecx, EXIT_FAILURE
    test eax, eax
    cmovnz edi, ecx
    call debug_exit

.Lkernel_main_stranger:
    lea rdi, [rip + boot_info_format]
    mov rsi, [rax + boot_info.magic]
    call panic

# noreturn kernel_idle(void)
# Wait for interrupts.
kernel_idle:
    hlt
    jmp kernel_idle

# Where a function that was called from outside returns to: the caller has a breakpoint here.
call_return:
    hlt
    jmp call_return

# void check_main_registers(const u64 found[7])
# Panic, naming the register, when main has changed one that System V makes callee-saved.
#   in        rdi = found: rsp rbp rbx r12 r13 r14 r15
#   clobbers  rax rcx rdx rsi r8-r11
check_main_registers:
    push rbp
    mov rbp, rsp
    lea rsi, [rip + main_registers]     # rsi = name and value of the first
    mov rax, [rip + main_stack]
    mov [rsi + 8], rax
    mov ecx, 7
.Lcheck_main_next:
    mov rax, [rdi]
    cmp rax, [rsi + 8]
    jne .Lcheck_main_changed
    add rdi, 8
    add rsi, 16
    dec ecx
    jnz .Lcheck_main_next
    pop rbp
    ret
.Lcheck_main_changed:
    mov rcx, rax                        # rcx = the value at the return
    mov rdx, [rsi + 8]                  # rdx = the value at the call
    mov rsi, [rsi]                      # rsi = the register's name
    lea rdi, [rip + main_changed_format]
    call panic

# noreturn debug_exit(int value)
# Leave the machine by isa-debug-exit: QEMU's status is 2 * value + 1. Where no such device is, stop for good.
#   in        edi = value
debug_exit:
    mov eax, edi
    out DEBUG_EXIT_PORT, al
    cli
.Ldebug_exit_halt:
    hlt
    jmp .Ldebug_exit_halt

.rodata
boot_info_format:
    .asciz "the loader left no boot_info: its magic number is 0x%016lx"
main_changed_format:
    .asciz "main changed %s, which System V makes callee-saved: 0x%lx at the call, 0x%lx at the return"
name_rsp: .asciz "rsp"
name_rbp: .asciz "rbp"
name_rbx: .asciz "rbx"
name_r12: .asciz "r12"
name_r13: .asciz "r13"
name_r14: .asciz "r14"
name_r15: .asciz "r15"

.data
.p2align 3
# Pairs of name and expected value; that of rsp is filled in when main is called.
main_registers:
    .quad name_rsp, 0
    .quad name_rbp, MAIN_RBP
    .quad name_rbx, MAIN_RBX
    .quad name_r12, MAIN_R12
    .quad name_r13, MAIN_R13
    .quad name_r14, MAIN_R14
    .quad name_r15, MAIN_R15

.bss
.p2align 3
# The stack pointer at main's call and, if it keeps the rules, at its return.
main_stack:
    .zero 8
# What main returned, for whoever looks from outside, and whether it has.
main_result:
    .zero 8
main_returned:
    .zero 8
# argv: the NULL behind the last argument.
main_arguments:
    .zero 8
