# The first instructions: from what a loader left to a processor in the state that the kernel wants.
#
# The loader (sandbox/guest/boot.py; in QEMU, the 32-bit stub in the page at LOADER_PHYS) enters here in long mode:
#
#   rdi = struct boot_info, in the direct map       interrupts off
#   cr3 = the page tables of boot_info.cr3          everything else: unknown
#
# The loader's own page is mapped at its physical address, because a processor that turns paging on must find its
# next instruction; start drops that mapping, and the lower half of the address space is empty from then on.

.text

# noreturn _start(struct boot_info *info)
# Make the processor's state whole, take the boot CPU's stack, and go on to kernel_main.
#   in        rdi = info
_start:
    cli
    cld
    mov [rip + boot_params], rdi

    # 1. control registers
    mov eax, CR0_KERNEL
    mov cr0, rax
    mov eax, CR4_KERNEL
    mov cr4, rax
    mov ecx, MSR_EFER
    mov eax, EFER_KERNEL
    xor edx, edx
    wrmsr
    fninit
    ldmxcsr [rip + start_mxcsr]

    # 2. only the kernel's half of the address space
    mov rax, DIRECT_MAP
    add rax, [rdi + boot_info.cr3]      # rax = the PML4
    mov qword ptr [rax], 0
    mov rax, [rdi + boot_info.cr3]
    mov cr3, rax

    # 3. a stack; rbp = 0 ends every backtrace
    mov rsp, [rdi + boot_info.stack_top]
    xor ebp, ebp
    call segments_init
    jmp kernel_main

.rodata
.p2align 2
start_mxcsr:
    .long MXCSR_KERNEL

.bss
.p2align 3
# struct boot_info *boot_params
boot_params:
    .zero 8
