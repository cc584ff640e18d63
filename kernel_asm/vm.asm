# Virtual memory: map, unmap and look up single 4 KiB pages in the kernel's own tables.
#
# Four levels of tables, 512 entries of 8 bytes each (SDM 4.5). A level is known by the bit at which its index begins:
#
#   63      48 47      39 38      30 29      21 20      12 11         0
#   | copies  |  PML4    |  PDPT    |   PD     |   PT     |  offset   |
#   | of 47   |  shift 39|  shift 30|  shift 21|  shift 12|           |
#
# Tables are read and written through the direct map, so that a frame number is all that is needed to reach one.
.set PML4_SHIFT, 39
.set PT_SHIFT, 12
.set LEVEL_BITS, 9
.set LEVEL_MASK, 511

.text

# int map_page(u64 virtual, u64 physical, u64 flags)
# Map one page. Tables that are missing are made; they stay when the page is unmapped.
#   in        rdi = virtual, rsi = physical, rdx = PTE_WRITE, PTE_USER, PTE_NX and the like; PTE_PRESENT is implied
#   out       rax = 0; -EINVAL for an address that is no page's or flags that no caller may set, -EEXIST when
#             something is mapped there, -ENOMEM without a page for a table
#   clobbers  rcx rdx rsi rdi r8-r11
map_page:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    sub rsp, 8                          # [rsp] = rflags at the entry
    mov rbx, rdi                        # rbx = virtual
    mov r13, rsi                        # r13 = physical
    mov r14, rdx                        # r14 = flags

    # 1. arguments
    call is_page_address
    jnz .Lmap_page_arguments
    mov rax, PTE_ADDRESS
    mov rcx, rax
    and rcx, r13
    cmp rcx, r13
    jne .Lmap_page_arguments
    mov rax, PTE_CALLER
    mov rcx, rax
    and rcx, r14
    cmp rcx, r14
    jne .Lmap_page_arguments
    lea rdi, [rip + page_tables_lock]
    call spin_lock_irqsave
    mov [rsp], rax

    # 2. down to the last level, making tables on the way
    mov r15d, PML4_SHIFT                # r15 = shift of the level
    mov rax, cr3
.Lmap_page_level:
    mov rdi, rax
    mov rsi, rbx
    mov ecx, r15d
    call table_entry
    mov r12, rax                        # r12 = entry
    cmp r15d, PT_SHIFT
    je .Lmap_page_last
    mov rax, [r12]
    test eax, PTE_PRESENT
    jnz .Lmap_page_table
    call make_table
    test rax, rax
    jz .Lmap_page_memory
    mov rcx, r14
    and ecx, PTE_USER
    or rax, rcx
    mov [r12], rax
.Lmap_page_table:
    test eax, PTE_LARGE
    jnz .Lmap_page_exists
    sub r15d, LEVEL_BITS
    jmp .Lmap_page_level

    # 3. the page itself; what was not present is in no TLB
.Lmap_page_last:
    test byte ptr [r12], PTE_PRESENT
    jnz .Lmap_page_exists
    or r13, r14
    or r13, PTE_PRESENT
    mov [r12], r13
    xor ebx, ebx
    jmp .Lmap_page_unlock
.Lmap_page_exists:
    mov ebx, EEXIST
    jmp .Lmap_page_unlock
.Lmap_page_memory:
    mov ebx, ENOMEM
.Lmap_page_unlock:
    lea rdi, [rip + page_tables_lock]
    mov rsi, [rsp]
    call spin_unlock_irqrestore
    jmp .Lmap_page_done
.Lmap_page_arguments:
    mov ebx, EINVAL
.Lmap_page_done:
    mov rax, rbx
    neg rax
    add rsp, 8
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# u64 unmap_page(u64 virtual)
# Take away one 4 KiB page.
#   in        rdi = virtual
#   out       rax = the physical address that was mapped; -EINVAL for an address that is no page's or lies in a 2 MiB
#             page, -EFAULT when nothing is mapped there
#   clobbers  rcx rdx rsi rdi r8
unmap_page:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = virtual
    mov r12, EINVAL
    neg r12                             # r12 = result
    call is_page_address
    jnz .Lunmap_page_done
    lea rdi, [rip + page_tables_lock]
    call spin_lock_irqsave
    sub rsp, 8
    push rax                            # [rsp] = rflags at the entry
    mov rdi, rbx
    call walk_page
    test rax, rax
    jz .Lunmap_page_absent
    cmp ecx, PT_SHIFT
    jne .Lunmap_page_unlock
    mov r12, PTE_ADDRESS
    and r12, [rax]
    mov qword ptr [rax], 0
    invlpg [rbx]
    jmp .Lunmap_page_unlock
.Lunmap_page_absent:
    mov r12, EFAULT
    neg r12
.Lunmap_page_unlock:
    pop rsi
    add rsp, 8
    lea rdi, [rip + page_tables_lock]
    call spin_unlock_irqrestore
.Lunmap_page_done:
    mov rax, r12
    pop r12
    pop rbx
    pop rbp
    ret

# u64 *walk_page(u64 virtual)
# Find the entry that maps an address: that of a 4 KiB page, or of a larger one.
#   in        rdi = virtual
#   out       rax = entry, in the direct map, or 0 when nothing is mapped; ecx = shift of its level
#   clobbers  rdx rsi rdi r8
walk_page:
    push rbp
    mov rbp, rsp
    mov rsi, rdi
    mov rax, rdi
    shl rax, 16
    sar rax, 16
    cmp rax, rdi                        # bits 63 to 48 must be copies of bit 47
    jne .Lwalk_page_absent
    mov rax, cr3
    mov ecx, PML4_SHIFT
.Lwalk_page_level:
    mov rdi, rax
    call table_entry
    mov rdx, [rax]
    test edx, PTE_PRESENT
    jz .Lwalk_page_absent
    cmp ecx, PT_SHIFT
    je .Lwalk_page_done
    test edx, PTE_LARGE
    jnz .Lwalk_page_done
    sub ecx, LEVEL_BITS
    mov rax, rdx
    jmp .Lwalk_page_level
.Lwalk_page_absent:
    xor eax, eax
.Lwalk_page_done:
    pop rbp
    ret

# is_page_address: whether an address is canonical and a page's first byte.
#   in        rdi = virtual
#   out       ZF = 1 when it is
#   clobbers  rax
is_page_address:
    mov rax, rdi
    shl rax, 16
    sar rax, 16
    cmp rax, rdi
    jne .Lis_page_address_done
    test edi, PAGE_SIZE - 1
.Lis_page_address_done:
    ret

# table_entry: the entry for an address in the table that another entry (or CR3) points to.
#   in        rdi = entry of the level above, rsi = virtual, ecx = shift of the level
#   out       rax = entry, in the direct map
#   clobbers  rdi r8
table_entry:
    mov rax, PTE_ADDRESS
    and rdi, rax
    mov rax, DIRECT_MAP
    add rdi, rax                        # rdi = table
    mov r8, rsi
    shr r8, cl
    and r8d, LEVEL_MASK
    lea rax, [rdi + r8 * 8]
    ret

# make_table: an empty page table.
#   out       rax = entry that points to it, or 0 when no page is left
#   clobbers  rcx rdx rsi rdi r8-r11
make_table:
    push rbp
    mov rbp, rsp
    push rbx
    sub rsp, 8
    xor edi, edi
    call get_free_pages
    mov rbx, rax                        # rbx = table
    test rax, rax
    jz .Lmake_table_done
    mov rdi, rbx
    xor esi, esi
    mov edx, PAGE_SIZE
    call memset
    mov rdi, rbx
    call virt_to_page
    or dword ptr [rax + page.flags], PG_TABLE
    mov rax, DIRECT_MAP
    sub rbx, rax
    or rbx, PTE_PRESENT | PTE_WRITE
    mov rax, rbx
.Lmake_table_done:
    add rsp, 8
    pop rbx
    pop rbp
    ret

.data
.p2align 2
page_tables_lock:
    .long 0
