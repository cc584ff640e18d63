# The shadow's gate: what the engine calls, in the System V convention, for each access to the heap.
#
#   void gate(engine, int type, u64 address, int size, s64 value, struct gate *gate)
#             rdi     esi       rdx          ecx       r8         r9
#
# It decides what can be decided from the bytes' states and from whose code it is, and jumps to Python with the same
# arguments for the rest. The same rules are written in Python in shadow.py (Shadow.accessed).

.set gate.shadow, 0                     # the states, one byte for each of RAM
.set gate.python, 8                     # where the rest goes
.set gate.divert, 16                    # not 0: everything goes there
.set gate.read_register, 24             # int uc_reg_read(engine, int register, u64 *value)
.set gate.rip, 32                       # the number of a register, in 4 bytes
.set gate.rsp, 36
.set gate.value, 40                     # what was read
.set gate.text, 48                      # the kernel's text: its address,
.set gate.text_size, 56                 # bytes,
.set gate.classes, 64                   # and the class of each
.set gate.stack, 72                     # the boot CPU's stack: its virtual address,
.set gate.stack_size, 80                # bytes, less those that are looked at
.set gate.stack_bytes, 88               # and where it lies in this process
.set gate.clock, 96                     # the engine's count of starts
.set gate.copied, 104                   # states of bytes that a copy has read and not yet written
.set gate.copied_at, 112                # and the count at that read

.set TYPE_WRITE, 17
.set CODE_ALLOCATOR, 1
.set CODE_HELPER, 2
.set CODE_COPY, 3
.set STACK_WORDS, 8

gate:
    cmp qword ptr [r9 + gate.divert], 0
    jne .Lpython
    mov eax, edx
    and eax, 0xfff
    add eax, ecx
    cmp eax, 0x1000                     # over the edge of a page: the rest may lie anywhere
    ja .Lpython
    mov r10, [r9]
    add r10, rdx                        # r10 = states of the bytes
    cmp ecx, 8
    je .Leight
    cmp ecx, 4
    je .Lfour
    cmp ecx, 1
    je .Lone
    cmp ecx, 2
    jne .Lpython
    movzx eax, word ptr [r10]
    jmp .Lstates
.Lone:
    movzx eax, byte ptr [r10]
    jmp .Lstates
.Lfour:
    mov eax, [r10]
    jmp .Lstates
.Leight:
    mov rax, [r10]
.Lstates:                               # rax = the states
    cmp esi, TYPE_WRITE
    je .Lwrite

    # 1. A read. Written memory and the allocator's data are everybody's to read.
    test rax, rax
    jz .Lreturn
    movabs r11, 0xfdfdfdfdfdfdfdfd      # all but METADATA
    test rax, r11
    jz .Lreturn
    call .Lwho
    cmp r11d, CODE_ALLOCATOR
    je .Lreturn
    cmp r11d, CODE_HELPER
    je .Lcaller
    cmp r11d, CODE_COPY
    jne .Lpython
    movabs r10, 0xfcfcfcfcfcfcfcfc      # all but METADATA and UNWRITTEN
    test rax, r10
    jnz .Lcaller
    movabs r10, 0x0101010101010101      # UNWRITTEN
    and rax, r10
    mov [r9 + gate.copied], rax
    mov rax, [r9 + gate.clock]
    mov rax, [rax]
    mov [r9 + gate.copied_at], rax
.Lreturn:
    ret

    # 2. A write, which is what makes bytes written.
.Lwrite:
    mov r11, rax
    or r11, [r9 + gate.copied]
    jz .Lreturn
    movabs r11, 0xfefefefefefefefe      # all but UNWRITTEN
    test rax, r11
    jnz .Lguarded
    cmp qword ptr [r9 + gate.copied], 0
    je .Lwritten
    call .Lwho
    cmp r11d, CODE_COPY
    jne .Lwritten
    mov rax, [r9 + gate.copied]
    mov qword ptr [r9 + gate.copied], 0
    mov r10, [r9 + gate.clock]
    mov r10, [r10]
    sub r10, [r9 + gate.copied_at]
    cmp r10, 1                          # read by this instruction, or by the one before
    jbe .Lstore
.Lwritten:
    xor eax, eax
.Lstore:                                # rax = the new states
    mov r10, [r9]
    add r10, rdx
    cmp ecx, 8
    je .Lstore_eight
    cmp ecx, 4
    je .Lstore_four
    cmp ecx, 1
    je .Lstore_one
    mov [r10], ax
    ret
.Lstore_one:
    mov [r10], al
    ret
.Lstore_four:
    mov [r10], eax
    ret
.Lstore_eight:
    mov [r10], rax
    ret

    # 3. A write to what is not a caller's: the allocator may.
.Lguarded:
    call .Lwho
    cmp r11d, CODE_ALLOCATOR
    je .Lreturn
    cmp r11d, CODE_HELPER
    jb .Lpython

    # 4. A helper: whose code has called it?
.Lcaller:
    mov r11d, [r9 + gate.rsp]
    call .Lregister
    sub r11, [r9 + gate.stack]
    cmp r11, [r9 + gate.stack_size]
    ja .Lpython
    add r11, [r9 + gate.stack_bytes]    # r11 = the word on top of the stack
    mov r10d, STACK_WORDS
.Lword:
    mov rax, [r11]
    sub rax, [r9 + gate.text]
    jb .Lnext_word                      # below the kernel: not a return address
    cmp rax, [r9 + gate.text_size]
    jae .Lpython
    add rax, [r9 + gate.classes]
    movzx eax, byte ptr [rax + -1]      # the class of the call's last byte
    cmp eax, CODE_ALLOCATOR
    je .Lreturn
    test eax, eax
    jz .Lpython
.Lnext_word:
    add r11, 8
    dec r10d
    jnz .Lword
.Lpython:
    jmp qword ptr [r9 + gate.python]

# r11d = the class of the present instruction. Keeps all others.
.Lwho:
    mov r11d, [r9 + gate.rip]
    sub rsp, 8
    call .Lregister
    add rsp, 8
    sub r11, [r9 + gate.text]
    cmp r11, [r9 + gate.text_size]
    jae .Lwho_other
    add r11, [r9 + gate.classes]
    movzx r11d, byte ptr [r11]
    ret
.Lwho_other:
    xor r11d, r11d
    ret

# r11 = the register with number r11d. Keeps all others. RSP is 0 mod 16 here, as after a call from the gate.
.Lregister:
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    mov esi, r11d
    lea rdx, [r9 + gate.value]
    call qword ptr [r9 + gate.read_register]
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    mov r11, [r9 + gate.value]
    ret
