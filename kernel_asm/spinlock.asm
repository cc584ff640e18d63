# Spinlocks: a u32 that is 0 when free. Whoever holds one has interrupts off, so that no handler of the same CPU can
# wait for a lock that it has itself interrupted.

.text

# u64 spin_lock_irqsave(u32 *lock)
# Turn interrupts off and take the lock.
#   in        rdi = lock, kept
#   out       rax = rflags as they were, for spin_unlock_irqrestore
#   clobbers  nothing else
spin_lock_irqsave:
    pushfq
    pop rax
    cli
.Lspin_lock_try:
    lock bts dword ptr [rdi], 0
    jc .Lspin_lock_wait
    ret
.Lspin_lock_wait:
    pause                               # read without writing until it looks free: the cache line stays shared
    test dword ptr [rdi], 1
    jnz .Lspin_lock_wait
    jmp .Lspin_lock_try

# void spin_unlock_irqrestore(u32 *lock, u64 flags)
# Release the lock, and turn interrupts on if they were on before.
#   in        rdi = lock, rsi = what spin_lock_irqsave returned
#   clobbers  nothing
spin_unlock_irqrestore:
    mov dword ptr [rdi], 0
    push rsi
    popfq
    ret
