# Segments: the GDT, the task state segment, and the boot CPU's data behind GS.
#
#   selector        descriptor                      in long mode it says
#   0               null
#   KERNEL_CS 0x08  code, ring 0, 64-bit            privilege and the 64-bit bit; base and limit mean nothing
#   KERNEL_DS 0x10  data, ring 0
#   USER_DS   0x18  data, ring 3                    (selectors with RPL 3: 0x1b and 0x23)
#   USER_CS   0x20  code, ring 3, 64-bit
#   TSS       0x28  task state segment, 16 bytes    where the interrupt stacks are
#
# The task state segment (SDM 8.7) holds the stacks of the interrupts that cannot trust the current one.
.set tss.rsp0, 4
.set tss.ist1, 36
.set tss.ist2, 44
.set tss.ist3, 52
.set tss.iomap_base, 102
.set sizeof.tss, 104
.set sizeof.gdt, 7 * 8

.text

# void segments_init(void)
# Load our own GDT and every segment register, the task register, and GS with the boot CPU's struct percpu.
#   clobbers  rax rcx rdx rdi
segments_init:
    push rbp
    mov rbp, rsp

    # 1. the task state segment, and its address into the descriptor's four pieces
    lea rdi, [rip + boot_tss]
    mov rcx, [rip + boot_params]
    mov rax, [rcx + boot_info.stack_top]
    mov [rdi + tss.rsp0], rax
    mov rax, [rcx + boot_info.ist_top]
    mov [rdi + tss.ist1], rax           # IST_DOUBLE_FAULT
    mov rax, [rcx + boot_info.ist_top + 8]
    mov [rdi + tss.ist2], rax           # IST_NMI
    mov rax, [rcx + boot_info.ist_top + 16]
    mov [rdi + tss.ist3], rax           # IST_MACHINE_CHECK
    mov word ptr [rdi + tss.iomap_base], sizeof.tss
    lea rcx, [rip + gdt_tss]
    mov [rcx + 2], di                   # base 15:0
    shr rdi, 16
    mov [rcx + 4], dil                  # base 23:16
    shr rdi, 8
    mov [rcx + 7], dil                  # base 31:24
    shr rdi, 8
    mov [rcx + 8], edi                  # base 63:32

    # 2. the table, its code segment by a far return, its data segments
    sub rsp, 16
    lea rax, [rip + gdt]
    mov word ptr [rsp + 6], sizeof.gdt - 1
    mov [rsp + 8], rax
    lgdt [rsp + 6]
    add rsp, 16
    lea rax, [rip + .Lsegments_data]
    push KERNEL_CS
    push rax
    retfq
.Lsegments_data:
    mov eax, KERNEL_DS
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lldt ax
    mov eax, TSS_SELECTOR
    ltr ax

    # 3. GS: this CPU's data
    lea rdi, [rip + boot_cpu]
    mov [rdi + percpu.self], rdi
    mov eax, edi
    mov rdx, rdi
    shr rdx, 32
    mov ecx, MSR_GS_BASE
    wrmsr
    pop rbp
    ret

.data
.p2align 4
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # KERNEL_CS: G L P S, code read accessed
    .quad 0x00cf93000000ffff            # KERNEL_DS: G D/B P S, data write accessed
    .quad 0x00cff3000000ffff            # USER_DS
    .quad 0x00affb000000ffff            # USER_CS
gdt_tss:
    .quad 0x0000890000000067            # TSS_SELECTOR: P, available 64-bit TSS, limit sizeof.tss - 1
    .quad 0

.bss
.p2align 4
boot_tss:
    .zero sizeof.tss

# struct percpu boot_cpu
.p2align PAGE_SHIFT
boot_cpu:
    .zero sizeof.percpu
