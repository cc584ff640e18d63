# The timer tick: channel 0 of the 8254, which drives IRQ 0.
.set PIT_CHANNEL0, 0                    # ports, from PIT_PORT
.set PIT_COMMAND, 3
.set PIT_RATE, 0x34                     # channel 0, low byte then high byte, mode 2: a pulse every divisor clocks
.set PIT_DIVISOR_MIN, 2
.set PIT_DIVISOR_MAX, 0x10000           # written as 0

.text

# void timer_init(void)
# Start boot_info.hz ticks a second; with 0, the timer's interrupt stays masked.
#   clobbers  rax rcx rdx rsi rdi
timer_init:
    push rbp
    mov rbp, rsp
    mov rcx, [rip + boot_params]
    mov ecx, [rcx + boot_info.hz]
    test ecx, ecx
    jz .Ltimer_init_done

    # 1. divisor = PIT_HZ / hz, as near as the counter can come
    mov eax, PIT_HZ
    xor edx, edx
    div ecx                             # eax = divisor
    mov ecx, PIT_DIVISOR_MIN
    cmp eax, ecx
    cmovb eax, ecx
    mov ecx, PIT_DIVISOR_MAX
    cmp eax, ecx
    cmova eax, ecx

    # 2. the channel
    mov ecx, eax
    mov al, PIT_RATE
    out PIT_PORT + PIT_COMMAND, al
    mov eax, ecx
    out PIT_PORT + PIT_CHANNEL0, al
    shr eax, 8
    out PIT_PORT + PIT_CHANNEL0, al

    # 3. its handler
    mov edi, IRQ_BASE + TIMER_IRQ
    lea rsi, [rip + timer_interrupt]
    call set_trap_handler
    mov edi, TIMER_IRQ
    call irq_enable
.Ltimer_init_done:
    pop rbp
    ret

# int timer_interrupt(struct pt_regs *regs)
# One more tick.
#   out       eax = 1: handled
timer_interrupt:
    inc qword ptr gs:[percpu.ticks]
    mov eax, 1
    ret

# u64 timer_ticks(void)
# How many ticks there have been since boot.
#   out       rax = ticks
#   clobbers  rcx
timer_ticks:
    mov rcx, qword ptr gs:[percpu.ticks]
    mov rax, rcx
    ret
