# The allocator's own account, in the columns of Linux's /proc/slabinfo.

.text

# void slabinfo(void)
# Print a line for each cache. Objects in magazines count as active, for they are out of their slabs.
#   clobbers  rax rcx rdx rsi rdi r8-r11
slabinfo:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    lea rdi, [rip + .Lslabinfo_header]
    xor eax, eax
    call kprintf
    lea rdi, [rip + slab_caches_lock]
    call spin_lock_irqsave
    mov r12, rax                        # r12 = saved flags
    lea r13, [rip + slab_caches]        # r13 = end of the list
    mov rbx, [r13 + list_head.next]     # rbx = link of a cache
.Lslabinfo_cache:
    cmp rbx, r13
    je .Lslabinfo_done
    mov rdi, rbx
    sub rdi, kmem_cache.list
    call slabinfo_line
    mov rbx, [rbx + list_head.next]
    jmp .Lslabinfo_cache
.Lslabinfo_done:
    lea rdi, [rip + slab_caches_lock]
    mov rsi, r12
    call spin_unlock_irqrestore
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# static void slabinfo_line(struct kmem_cache *cache)
#   in        rdi = cache
#   clobbers  rax rcx rdx rsi rdi r8-r11
slabinfo_line:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r12, rax                        # r12 = saved flags

    # 1. Objects that are out: all those of full slabs, and what each partial one says.
    mov r13d, [rbx + kmem_cache.nr_full]
    mov eax, [rbx + kmem_cache.objects]
    imul r13, rax                       # r13 = active objects
    lea rcx, [rbx + kmem_cache.partial]
    mov rdx, [rcx + list_head.next]
.Lslabinfo_line_slab:
    cmp rdx, rcx
    je .Lslabinfo_line_counted
    mov rsi, rdx
    sub rsi, page.next
    movzx eax, word ptr [rsi + page.inuse]
    add r13, rax
    mov rdx, [rdx + list_head.next]
    jmp .Lslabinfo_line_slab
.Lslabinfo_line_counted:
    mov r14d, [rbx + kmem_cache.nr_full]
    add r14d, [rbx + kmem_cache.nr_partial] # r14 = active slabs
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r12
    call spin_unlock_irqrestore

    # 2. The arguments behind the sixth go on the stack, the last one first.
    mov r9d, [rbx + kmem_cache.objects]
    mov eax, [rbx + kmem_cache.nr_depot_full]
    imul eax, [rbx + kmem_cache.rounds]
    push rax                            # sharedavail: objects in the depot
    mov r8d, r14d
    add r8d, [rbx + kmem_cache.nr_empty]
    push r8                             # num_slabs
    push r14                            # active_slabs
    mov esi, [rbx + kmem_cache.rounds]
    mov eax, DEPOT_LIMIT
    xor edx, edx
    cmp qword ptr [rbx + kmem_cache.cpu], percpu.slots
    cmove esi, edx
    cmove eax, edx
    push rax                            # sharedfactor: full magazines that the depot keeps
    push rsi                            # batchcount: objects that are exchanged at once
    lea rdx, [rsi + rsi]
    push rdx                            # limit: objects in front of one CPU
    mov ecx, [rbx + kmem_cache.order]
    mov eax, 1
    shl eax, cl
    push rax                            # pagesperslab
    lea rdi, [rip + .Lslabinfo_format]
    lea rsi, [rbx + kmem_cache.name]
    mov rdx, r13                        # active_objs
    mov rcx, r8
    imul rcx, r9                        # num_objs
    mov r8d, [rbx + kmem_cache.size]    # objsize; r9 = objperslab
    xor eax, eax
    call kprintf
    lea rsp, [rbp - 32]
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
.Lslabinfo_header:
    .ascii "slabinfo - version: 2.1\n"
    .ascii "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
    .ascii " : tunables <limit> <batchcount> <sharedfactor>"
    .asciz " : slabdata <active_slabs> <num_slabs> <sharedavail>\n"
.Lslabinfo_format:
    .ascii "%-17s %6lu %6lu %6u %4u %4u : tunables %4u %4u %4u"
    .asciz " : slabdata %6lu %6lu %6lu\n"
