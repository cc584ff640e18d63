# A page fault, walked through the tables.
#
# The program reads from an address that nobody has mapped. The processor walks the page tables, finds an entry that is
# not present, and calls the kernel's page fault handler; the kernel calls ours. It shows the walk, maps a fresh page
# and returns: the processor runs the same instruction again, and now it succeeds.

.set HOME, 0xffffd00012345000           # an address in no use by the kernel
.set VECTOR_PF, 14

.text

main:
    push rbp
    mov rbp, rsp
    push rbx
    push rbx

    mov edi, VECTOR_PF
    lea rsi, [rip + on_page_fault]
    call set_trap_handler

    mov rbx, HOME
    mov rax, [rbx + 8]                  # faults; after the handler it reads from the new page
    lea rdi, [rip + value]
    mov rsi, rax
    call kprintf
    mov qword ptr [rbx + 8], 42         # no fault: the page is there
    lea rdi, [rip + value]
    mov rsi, [rbx + 8]
    call kprintf

    lea rdi, [rip + count]
    mov esi, [rip + faults]
    call kprintf
    mov eax, [rip + faults]
    dec eax                             # success is exactly one fault
    pop rbx
    pop rbx
    pop rbp
    ret

# int on_page_fault(struct pt_regs *regs)
# Show the walk to the address in CR2, map a zeroed page there, and ask for a retry.
#   in        rdi = regs
#   out       eax = 1, handled; 0 when there is no page
on_page_fault:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    inc dword ptr [rip + faults]
    mov rbx, cr2                        # rbx = the address that did not translate
    mov rdx, [rdi + pt_regs.error_code]
    lea rdi, [rip + caught]
    mov rsi, rbx
    call kprintf

    # 1. The walk: four tables, nine bits of the address each.
    mov rdi, rbx
    call show_walk

    # 2. A page of zeros, mapped for reading and writing, never for execution.
    xor edi, edi
    call get_free_pages
    test rax, rax
    jz .Lon_page_fault_out
    mov r12, rax                        # r12 = the page, in the direct map
    mov rdi, rax
    xor esi, esi
    mov edx, PAGE_SIZE
    call memset
    mov rdi, rbx
    shr rdi, PAGE_SHIFT
    shl rdi, PAGE_SHIFT                 # rdi = the page's first byte
    mov rsi, r12
    mov rax, DIRECT_MAP
    sub rsi, rax                        # rsi = its physical address
    mov rdx, 0x8000000000000003         # present, writable, no execution
    call map_page
    lea rdi, [rip + mapped]
    mov esi, eax
    call kprintf
    mov rdi, rbx
    call show_walk
    mov eax, 1
.Lon_page_fault_out:
    pop r12
    pop rbx
    pop rbp
    ret

# void show_walk(u64 address)
# Print the entry that the processor reads at each level, down to the first that is not present.
#   in        rdi = address
show_walk:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = address
    mov r12, cr3                        # r12 = physical address of the table
    mov r13d, 39                        # r13 = lowest of the nine bits that this level looks at
    lea r14, [rip + levels]             # r14 = the level's name, 8 bytes each
.Lshow_walk_level:
    mov ecx, r13d
    mov rdx, rbx
    shr rdx, cl
    and edx, 511                        # rdx = index in the table
    mov rax, DIRECT_MAP
    add rax, r12
    mov r12, [rax + rdx * 8]            # r12 = entry
    lea rdi, [rip + level_row]
    mov rsi, r14
    mov rcx, r12
    and ecx, 1
    lea rax, [rip + absent]
    lea r8, [rip + present]
    test ecx, ecx
    cmovz r8, rax
    mov rcx, r8
    call kprintf
    test r12d, 1
    jz .Lshow_walk_out
    mov rax, 0x000ffffffffff000
    and r12, rax                        # r12 = the next table
    add r14, 8
    sub r13d, 9
    cmp r13d, 12
    jae .Lshow_walk_level
.Lshow_walk_out:
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
caught:
    .asciz "page fault at 0x%016lx, error code %lu\n"
level_row:
    .asciz "    %-4s entry %3lu: %s\n"
present:
    .asciz "present"
absent:
    .asciz "not present"
mapped:
    .asciz "map_page returned %d; the walk is now:\n"
value:
    .asciz "the program reads %lu\n"
count:
    .asciz "page faults: %u\n"
levels:
    .asciz "PML4"
    .zero 3
    .asciz "PDPT"
    .zero 3
    .asciz "PD"
    .zero 5
    .asciz "PT"
    .zero 5

.bss
.p2align 2
faults:
    .zero 4
