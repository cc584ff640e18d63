# What the engine calls, in the System V convention, while everything is recorded.
#
#   void instruction(engine, u64 address, u32 size, struct columns *columns)                  before each instruction
#                    rdi     rsi          edx       rcx
#   void access(engine, int type, u64 address, int size, s64 value, struct columns *columns)  at each access
#               rdi     esi       rdx          ecx       r8         r9
#
# Both put away the common case and jump to Python with the same arguments for the rest: a column is full, the upper
# half of RIP is another one than before, an access goes over the edge of a page. The same is written in Python in
# accesses_recording.py (Recording.instruction, Recording.access).

.set columns.counter, 0                 # the engine's count of starts
.set columns.bias, 8                    # what makes it the number of the instruction's slot
.set columns.room, 16                   # slots that may be filled
.set columns.high, 24                   # the upper half of RIP
.set columns.rips, 32                   # u32, the lower half, one for each start
.set columns.count, 40                  # accesses so far
.set columns.access_room, 48            # accesses that there is room for
.set columns.keys, 56                   # u32: the slot behind the instruction's
.set columns.physical, 64               # u32
.set columns.values, 72                 # u64
.set columns.kinds, 80                  # u8: size, and KIND_WRITE
.set columns.python_instruction, 88     # where the rest goes
.set columns.python_access, 96
.set columns.masks, 104                 # u64 for each size from 0 to 8: the bytes of a value that count

.set TYPE_WRITE, 17
.set KIND_WRITE_SHIFT, 4
.set LARGEST, 8
.set PAGE_SIZE, 0x1000

instruction:
    mov rax, [rcx]
    mov rax, [rax]
    add rax, [rcx + columns.bias]       # rax = the slot
    cmp rax, [rcx + columns.room]
    jae .Linstruction_python
    mov r8, rsi
    shr r8, 32
    cmp r8, [rcx + columns.high]
    jne .Linstruction_python
    mov r8, [rcx + columns.rips]
    mov [r8 + rax * 4], esi
    ret
.Linstruction_python:
    jmp qword ptr [rcx + columns.python_instruction]

    .p2align 4, 0xcc
access:
    mov eax, edx
    and eax, 0xfff
    add eax, ecx
    cmp eax, PAGE_SIZE                  # over the edge of a page: the rest may lie anywhere
    ja .Laccess_python
    cmp ecx, LARGEST
    ja .Laccess_python
    mov r10, [r9 + columns.count]
    cmp r10, [r9 + columns.access_room]
    jae .Laccess_python
    mov rax, [r9]
    mov rax, [rax]
    add rax, [r9 + columns.bias]
    inc rax                             # rax = the slot behind the instruction's
    mov r11, [r9 + columns.keys]
    mov [r11 + r10 * 4], eax
    mov r11, [r9 + columns.physical]
    mov [r11 + r10 * 4], edx
    mov ecx, ecx
    and r8, [r9 + rcx * 8 + columns.masks]
    mov r11, [r9 + columns.values]
    mov [r11 + r10 * 8], r8
    xor eax, eax
    cmp esi, TYPE_WRITE
    sete al
    shl eax, KIND_WRITE_SHIFT
    or eax, ecx
    mov r11, [r9 + columns.kinds]
    mov [r11 + r10], al
    inc r10
    mov [r9 + columns.count], r10
    ret
.Laccess_python:
    jmp qword ptr [r9 + columns.python_access]

    .p2align 4, 0xcc
nothing:
    ret
