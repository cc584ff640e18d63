# The kernel's own tests, run by the kernel: `name ... [ok]` or `name ... [failed] what was expected`.
#
# A program like any other; main returns 0 when every test has passed. Each file below adds tests:
#
#       test_case "strlen counts the bytes before the NUL", test_strlen
#   test_strlen:
#       push rbp
#       mov rbp, rsp
#       ...
#       cmp eax, 5
#       expect e, "strlen of hello is 5"
#       leave
#       ret
#
# A test that fails ends at once: expect goes back to the runner, which restores its stack and registers. Rows of the
# table are all that lies in .data; what a test needs otherwise goes to .bss or .rodata.
.set selftest.function, 0               # a row of the table
.set selftest.name, 8
.set sizeof.selftest, 16

# One row of the table.
.macro test_case name, function
    .rodata
.Ltest_name_\@:
    .asciz "\name"
    .data
    .quad \function, .Ltest_name_\@
    .text
.endm

# Fail unless a condition code holds. Clobbers nothing when it does.
.macro expect condition, what
    .rodata
.Lexpect_what_\@:
    .asciz "\what"
    .text
    j\condition .Lexpect_holds_\@
    lea rdi, [rip + .Lexpect_what_\@]
    jmp selftest_fail
.Lexpect_holds_\@:
.endm

.data
.p2align 3
selftest_table:

.include "selftest/text.asm"
.include "selftest/traps.asm"
.include "selftest/vm.asm"
.include "selftest/interrupts.asm"
.include "selftest/pages.asm"
.include "selftest/slab.asm"
.include "selftest/kmalloc.asm"
.include "selftest/debug.asm"

.data
selftest_table_end:

.text

# int main(void)
# Run every test of the table, and print one line for each and one for all.
#   out       eax = 0 when all have passed, else 1
main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    lea rbx, [rip + selftest_table]     # rbx = row
    xor r12d, r12d                      # r12 = tests passed
    xor r13d, r13d                      # r13 = tests failed
.Lmain_test:
    lea rax, [rip + selftest_table_end]
    cmp rbx, rax
    jae .Lmain_summary
    lea rdi, [rip + selftest_name_format]
    mov rsi, [rbx + selftest.name]
    call kprintf
    mov rdi, [rbx + selftest.function]
    call selftest_run
    test rax, rax
    jnz .Lmain_failed
    inc r12d
    lea rdi, [rip + selftest_ok]
    jmp .Lmain_print
.Lmain_failed:
    inc r13d
    lea rdi, [rip + selftest_failed]
    mov rsi, rax
.Lmain_print:
    call kprintf
    add rbx, sizeof.selftest
    jmp .Lmain_test
.Lmain_summary:
    lea rdi, [rip + selftest_summary]
    mov esi, r12d
    mov edx, r13d
    call kprintf
    xor eax, eax
    test r13d, r13d
    setnz al
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# const char *selftest_run(void (*test)(void))
# Run one test; whatever it leaves behind in registers, interrupts and exception handlers is put right.
#   in        rdi = test
#   out       rax = 0 when it passed, else what it expected in vain
#   clobbers  rcx rdx rsi rdi r8-r11
selftest_run:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push rbp
    mov [rip + selftest_stack], rsp
    call rdi
    xor edi, edi

# Where a test that fails goes, with rdi = what it expected.
selftest_fail:
    mov rsp, [rip + selftest_stack]
    pop rbp
    cld
    sti
    mov r12, rdi
    xor ebx, ebx                        # rbx = vector
.Lselftest_run_handler:
    mov edi, ebx
    xor esi, esi
    call set_trap_handler
    inc ebx
    cmp ebx, IRQ_BASE
    jb .Lselftest_run_handler
    mov rax, r12
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
selftest_name_format:   .asciz "%s ... "
selftest_ok:            .asciz "[ok]\n"
selftest_failed:        .asciz "[failed] %s\n"
selftest_summary:       .asciz "%d passed, %d failed\n"

.bss
.p2align 3
# The runner's stack pointer while a test runs.
selftest_stack:
    .zero 8
