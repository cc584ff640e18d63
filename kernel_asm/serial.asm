# The console: a 16550 UART at SERIAL_PORT, polled. Registers as in the National PC16550D data sheet.
.set UART_DATA, 0                       # with LCR_DIVISOR set: low byte of the divisor
.set UART_IER, 1                        # interrupts enabled; with LCR_DIVISOR set: its high byte
.set UART_FCR, 2
.set UART_LCR, 3
.set UART_MCR, 4
.set UART_LSR, 5
.set UART_DIVISOR, 1                    # 115200 / 1 = 115200 bits a second
.set LCR_8N1, 0x03                      # 8 data bits, no parity, 1 stop bit
.set LCR_DIVISOR, 0x80
.set FCR_ENABLE_CLEAR, 0xc7             # FIFOs on and empty, interrupt at 14 bytes
.set MCR_READY, 0x0b                    # DTR, RTS, and OUT2, which lets the UART's interrupt line through
.set LSR_THR_EMPTY, 0x20                # the next byte can be written

.text

# void serial_init(void)
# 115200 bits a second, 8N1, FIFOs on, no interrupts.
#   clobbers  rax rdx
serial_init:
    xor eax, eax
    mov edx, SERIAL_PORT + UART_IER
    out dx, al
    mov al, LCR_DIVISOR | LCR_8N1
    mov edx, SERIAL_PORT + UART_LCR
    out dx, al
    mov al, UART_DIVISOR
    mov edx, SERIAL_PORT + UART_DATA
    out dx, al
    xor eax, eax
    mov edx, SERIAL_PORT + UART_IER
    out dx, al
    mov al, LCR_8N1
    mov edx, SERIAL_PORT + UART_LCR
    out dx, al
    mov al, FCR_ENABLE_CLEAR
    mov edx, SERIAL_PORT + UART_FCR
    out dx, al
    mov al, MCR_READY
    mov edx, SERIAL_PORT + UART_MCR
    out dx, al
    ret

# void serial_putc(int character)
# Send one byte as soon as the UART can take it.
#   in        dil = character
#   clobbers  rax rdx
serial_putc:
    mov edx, SERIAL_PORT + UART_LSR
.Lserial_putc_wait:
    in al, dx
    test al, LSR_THR_EMPTY
    jz .Lserial_putc_wait
    mov eax, edi
    mov edx, SERIAL_PORT + UART_DATA
    out dx, al
    mov [rip + serial_last], al
    ret

# void serial_write(const void *data, u64 size)
# Send size bytes.
#   in        rdi = data, rsi = size
#   clobbers  rax rcx rdx rsi rdi r8
serial_write:
    push rbp
    mov rbp, rsp
    mov r8, rdi                         # r8 = next byte
    mov rcx, rsi                        # rcx = how many are left
    jmp .Lserial_write_test
.Lserial_write_next:
    movzx edi, byte ptr [r8]
    call serial_putc
    inc r8
    dec rcx
.Lserial_write_test:
    test rcx, rcx
    jnz .Lserial_write_next
    pop rbp
    ret

# void serial_fresh_line(void)
# End the current line, unless nothing stands on it yet.
#   clobbers  rax rdx rdi
serial_fresh_line:
    mov edi, '\n'
    cmp [rip + serial_last], dil
    jne serial_putc
    ret

.data
# The byte that was sent last; before the first one, as if a line had just ended.
serial_last:
    .byte '\n'
