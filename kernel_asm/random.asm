# Numbers that look random and are the same in every run: splitmix64 (Steele, Lea and Flood, OOPSLA 2014), from the
# seed that the loader hands over.

.set SPLITMIX_STEP, 0x9e3779b97f4a7c15
.set SPLITMIX_FIRST, 0xbf58476d1ce4e5b9
.set SPLITMIX_SECOND, 0x94d049bb133111eb

.text

# void random_init(void)
# Start every generator from the loader's seeds.
#   clobbers  rax rcx
random_init:
    mov rcx, [rip + boot_params]
    mov rax, [rcx + boot_info.freelist_seed]
    mov [rip + freelist_random_state], rax
    mov rax, [rcx + boot_info.seed]
    mov [rip + random_state], rax
    mov [rip + failslab + fault_attr.state], rax
    mov [rip + fail_page_alloc + fault_attr.state], rax
    ret

# u64 random_next(u64 *state)
# The next number of a generator.
#   in        rdi = state
#   out       rax = 64 bits
#   clobbers  rcx
random_next:
    mov rcx, SPLITMIX_STEP
    mov rax, rcx
    lock xadd [rdi], rax
    add rax, rcx                        # rax = state, as it is now
    mov rcx, rax
    shr rcx, 30
    xor rax, rcx
    mov rcx, SPLITMIX_FIRST
    imul rax, rcx
    mov rcx, rax
    shr rcx, 27
    xor rax, rcx
    mov rcx, SPLITMIX_SECOND
    imul rax, rcx
    mov rcx, rax
    shr rcx, 31
    xor rax, rcx
    ret

# u64 random_below(u64 *state, u64 limit)
# A number from 0 to limit - 1: the high half of the product of limit and the next 64 bits.
#   in        rdi = state, rsi = limit
#   out       rax = number
#   clobbers  rcx rdx
random_below:
    push rbp
    mov rbp, rsp
    call random_next
    mul rsi
    mov rax, rdx
    pop rbp
    ret

.bss
.p2align 3
random_state:                           # u64: the generator of secrets
    .zero 8
freelist_random_state:                  # u64: the generator of the order of free lists
    .zero 8
