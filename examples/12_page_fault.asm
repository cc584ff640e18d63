# A page fault: a page is missing, the handler puts one there, and the same instruction runs again.
#
# The processor's walk through the tables for an address that nobody has mapped ends at an entry that is not present:
# a page fault. Our handler shows that walk (show_walk.inc), maps a fresh page and returns; now the read succeeds.
.set HOME, 0xffffd00012345000           # an address in no use by the kernel
.include "show_walk.inc"
.text
main:
    push rbx
    mov edi, VECTOR_PAGE_FAULT
    lea rsi, [rip + on_page_fault]
    call set_trap_handler
    mov rbx, HOME
    mov rsi, [rbx + 8]                  # faults; after the handler it reads from the new page
    lea rdi, [rip + value]
    call kprintf
    mov qword ptr [rbx + 8], 42         # no fault: the page is there
    mov rsi, [rbx + 8]
    lea rdi, [rip + value]
    call kprintf
    xor eax, eax
    pop rbx
    ret

# int on_page_fault(struct pt_regs *regs): map a page of zeros where one is missing; 1 asks for a retry
on_page_fault:
    push rbp
    mov rbp, rsp
    mov rdx, [rdi + pt_regs.error_code]
    mov rsi, cr2                        # the address that did not translate
    lea rdi, [rip + caught]
    call kprintf
    mov rdi, cr2
    call show_walk
    xor edi, edi
    call get_free_pages
    mov rdi, rax                        # rdi = the page, in the direct map
    xor esi, esi
    mov edx, PAGE_SIZE
    call memset
    mov rsi, rax
    mov rdi, DIRECT_MAP
    sub rsi, rdi                        # rsi = its physical address
    mov rdi, cr2
    shr rdi, PAGE_SHIFT
    shl rdi, PAGE_SHIFT                 # rdi = the missing page's first byte
    mov rdx, PTE_PRESENT | PTE_WRITE | PTE_NX
    call map_page
    lea rdi, [rip + mapped]
    mov esi, eax
    call kprintf
    mov rdi, cr2
    call show_walk
    mov eax, 1
    pop rbp
    ret
.rodata
caught: .asciz "page fault at 0x%016lx, error code %lu\n"
mapped: .asciz "map_page returned %d; the walk is now:\n"
value: .asciz "the program reads %lu\n"
