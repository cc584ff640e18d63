# Failures on purpose, as Linux's lib/fault-inject.c: whoever tests an error path fills in a struct fault_attr.
#
#   failslab           allocations from caches with SLAB_FAILSLAB (the letter A of slab_debug)
#   fail_page_alloc    get_free_pages

.text

# int should_fail(struct fault_attr *attr)
# Whether this call is one that must fail.
#   in        rdi = attr
#   out       eax = 1 or 0
#   clobbers  rcx rdx rsi rdi
should_fail:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = attr
    lea rdi, [rip + fault_lock]
    call spin_lock_irqsave
    mov r12, rax                        # r12 = saved flags
    inc qword ptr [rbx + fault_attr.calls]

    # 1. The call that was named in advance.
    cmp qword ptr [rbx + fault_attr.nth], 0
    je .Lshould_fail_chance
    dec qword ptr [rbx + fault_attr.nth]
    jz .Lshould_fail_yes

    # 2. By chance, at most so often, and not more than one in so many.
.Lshould_fail_chance:
    cmp dword ptr [rbx + fault_attr.probability], 0
    je .Lshould_fail_no
    cmp qword ptr [rbx + fault_attr.times], 0
    je .Lshould_fail_no
    mov ecx, [rbx + fault_attr.interval]
    cmp ecx, 1
    jbe .Lshould_fail_draw
    mov rax, [rbx + fault_attr.calls]
    xor edx, edx
    div rcx
    test rdx, rdx
    jnz .Lshould_fail_no
.Lshould_fail_draw:
    lea rdi, [rbx + fault_attr.state]
    mov esi, 100
    call random_below
    cmp eax, [rbx + fault_attr.probability]
    jae .Lshould_fail_no
    cmp qword ptr [rbx + fault_attr.times], -1
    je .Lshould_fail_yes
    dec qword ptr [rbx + fault_attr.times]
.Lshould_fail_yes:
    inc qword ptr [rbx + fault_attr.failed]
    mov ebx, 1
    jmp .Lshould_fail_unlock
.Lshould_fail_no:
    xor ebx, ebx
.Lshould_fail_unlock:
    lea rdi, [rip + fault_lock]
    mov rsi, r12
    call spin_unlock_irqrestore
    mov eax, ebx
    pop r12
    pop rbx
    pop rbp
    ret

.data
.p2align 3
failslab:                               # struct fault_attr
    .zero fault_attr.times
    .quad 0xffffffffffffffff
    .zero sizeof.fault_attr - fault_attr.times - 8
fail_page_alloc:                        # struct fault_attr
    .zero fault_attr.times
    .quad 0xffffffffffffffff
    .zero sizeof.fault_attr - fault_attr.times - 8

.bss
.p2align 3
fault_lock:                             # guards every struct fault_attr
    .zero 8
