# Pairs of an allocation and a free, to be counted from outside.
#
# Each loop exists once, and takes the two functions as arguments: with kmem_cache_alloc and kmem_cache_free, with
# kmalloc and kfree, or with two that do nothing. The difference is what the allocator took.

.set BATCH, 1000

.text

# int main(void)
main:
    xor eax, eax
    ret

# void bench_nothing(void)
bench_nothing:
    ret

# void bench_ping_pong(void *(*alloc)(u64), void (*free)(u64, void *), u64 argument, u64 pairs)
# Allocate and free at once, again and again. argument is the cache, or the size.
#   clobbers  all that a call may
bench_ping_pong:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = alloc
    mov r12, rsi                        # r12 = free
    mov r13, rdx                        # r13 = argument
    mov r14, rcx                        # r14 = pairs to go
.Lbench_ping_pong_next:
    mov rdi, r13
    call rbx
    call bench_free
    dec r14
    jnz .Lbench_ping_pong_next
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void bench_batch(void *(*alloc)(u64), void (*free)(u64, void *), u64 argument, u64 batches)
# Allocate BATCH objects, then free them in the same order.
#   clobbers  all that a call may
bench_batch:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push r15
    mov rbx, rdi                        # rbx = alloc
    mov r12, rsi                        # r12 = free
    mov r13, rdx                        # r13 = argument
    mov r14, rcx                        # r14 = batches to go
.Lbench_batch_next:
    xor r15d, r15d                      # r15 = objects held
.Lbench_batch_alloc:
    mov rdi, r13
    call rbx
    lea rcx, [rip + bench_held]
    mov [rcx + r15 * 8], rax
    inc r15
    cmp r15, BATCH
    jb .Lbench_batch_alloc
    xor r15d, r15d                      # r15 = objects given back
.Lbench_batch_free:
    lea rcx, [rip + bench_held]
    mov rax, [rcx + r15 * 8]
    call bench_free
    inc r15
    cmp r15, BATCH
    jb .Lbench_batch_free
    dec r14
    jnz .Lbench_batch_next
    pop r15
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# static void bench_free: free rax with r12, whose first argument is the object when it is kfree, else the cache r13
bench_free:
    lea rcx, [rip + kfree]
    mov rdi, r13
    mov rsi, rax
    cmp r12, rcx
    cmove rdi, rax
    jmp r12

.bss
.p2align 3
bench_held:
    .rept BATCH
    .zero 8
    .endr
