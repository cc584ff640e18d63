# Interrupt requests: the two 8259 controllers of a PC, the second behind input 2 of the first.
#
# They are told to use the vectors from IRQ_BASE on, and every input is masked until its driver asks for it.
.set PIC_COMMAND, 0                     # ports, from PIC1_PORT and PIC2_PORT
.set PIC_DATA, 1                        # the mask, once initialised
.set PIC_ICW1, 0x11                     # initialise; cascaded, edge triggered, a fourth word follows
.set PIC_ICW4, 0x01                     # 8086 mode, interrupts are acknowledged by software
.set PIC_READ_ISR, 0x0b                 # the next read of the command port gives what is in service
.set PIC_EOI, 0x20                      # the interrupt in service with the highest priority is over
.set PIC_CASCADE, 2                     # the first controller's input that the second one drives
.set PIC_SPURIOUS, 7                    # the input that a controller names when a request has vanished

.text

# void irq_init(void)
# Program both controllers and mask every input.
#   clobbers  rax
irq_init:
    mov al, PIC_ICW1
    out PIC1_PORT + PIC_COMMAND, al
    out PIC2_PORT + PIC_COMMAND, al
    mov al, IRQ_BASE
    out PIC1_PORT + PIC_DATA, al
    mov al, IRQ_BASE + 8
    out PIC2_PORT + PIC_DATA, al
    mov al, 1 << PIC_CASCADE            # to the first: which inputs have a controller behind them
    out PIC1_PORT + PIC_DATA, al
    mov al, PIC_CASCADE                 # to the second: which input it is
    out PIC2_PORT + PIC_DATA, al
    mov al, PIC_ICW4
    out PIC1_PORT + PIC_DATA, al
    out PIC2_PORT + PIC_DATA, al
    mov al, 0xff
    out PIC1_PORT + PIC_DATA, al
    out PIC2_PORT + PIC_DATA, al
    ret

# void irq_enable(unsigned irq)
# Let requests of an input through; its handler is that of vector IRQ_BASE + irq.
#   in        edi = irq, 0 to 15
#   clobbers  rax rcx rdx
irq_enable:
    push rbp
    mov rbp, rsp
    pushfq
    cli                                 # the masks are changed in two steps
    call irq_mask_port
    in al, dx
    btr eax, ecx
    out dx, al
    cmp edi, 8
    jb .Lirq_enable_done
    in al, PIC1_PORT + PIC_DATA         # the second controller must be heard, too
    and al, 0xff ^ (1 << PIC_CASCADE)
    out PIC1_PORT + PIC_DATA, al
.Lirq_enable_done:
    popfq
    pop rbp
    ret

# void irq_disable(unsigned irq)
# Hold back the requests of an input.
#   in        edi = irq, 0 to 15
#   clobbers  rax rcx rdx
irq_disable:
    push rbp
    mov rbp, rsp
    pushfq
    cli
    call irq_mask_port
    in al, dx
    bts eax, ecx
    out dx, al
    popfq
    pop rbp
    ret

# irq_mask_port: where an input's mask bit is.
#   in        edi = irq
#   out       dx = port of the mask, ecx = number of the bit
irq_mask_port:
    mov edx, PIC1_PORT + PIC_DATA
    mov ecx, edi
    cmp ecx, 8
    jb .Lirq_mask_port_first
    mov edx, PIC2_PORT + PIC_DATA
.Lirq_mask_port_first:
    and ecx, 7
    ret

# int irq_is_spurious(unsigned irq)
# Whether an interrupt is one that nobody asked for: a controller whose request vanished before the processor took it
# names its input 7, but has nothing in service (Intel 8259A data sheet, "default IR7").
#   in        edi = irq
#   out       eax = 1 for such a one, and it needs no further acknowledgement; 0 for a real interrupt
irq_is_spurious:
    cmp edi, PIC_SPURIOUS
    je .Lirq_spurious_first
    cmp edi, 8 + PIC_SPURIOUS
    je .Lirq_spurious_second
    xor eax, eax
    ret
.Lirq_spurious_first:
    mov al, PIC_READ_ISR
    out PIC1_PORT + PIC_COMMAND, al
    in al, PIC1_PORT + PIC_COMMAND
    shr al, PIC_SPURIOUS
    xor al, 1                           # al = 1 when input 7 is not in service
    movzx eax, al
    ret
.Lirq_spurious_second:
    mov al, PIC_READ_ISR
    out PIC2_PORT + PIC_COMMAND, al
    in al, PIC2_PORT + PIC_COMMAND
    shr al, PIC_SPURIOUS
    xor al, 1
    movzx eax, al
    jz .Lirq_spurious_done
    mov al, PIC_EOI                     # the first controller did see a request: that of the second
    out PIC1_PORT + PIC_COMMAND, al
    mov eax, 1
.Lirq_spurious_done:
    ret

# void irq_acknowledge(unsigned irq)
# Tell the controllers that an interrupt has been served.
#   in        edi = irq
#   clobbers  rax
irq_acknowledge:
    mov al, PIC_EOI
    cmp edi, 8
    jb .Lirq_acknowledge_first
    out PIC2_PORT + PIC_COMMAND, al
.Lirq_acknowledge_first:
    out PIC1_PORT + PIC_COMMAND, al
    ret
