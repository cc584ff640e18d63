# The boot parameter slab_debug, in Linux's syntax (Documentation/admin-guide/mm/slab.rst):
#
#   slab_debug = block ; block ; ...         block = letters[,name,name,...]
#
#   letters    F consistency checks     Z red zones     P poison     U owners     T trace     A failslab
#              O no debugging for caches whose slabs would grow     - none; no letters before a comma: FZPU
#   name       of a cache; a * at its end stands for anything
#
# The first block that names a cache decides about it. One without names is for all the others; the last such counts.
# The loader has refused what is not of this form.

.text

# u32 slab_debug_flags(const char *name)
# What slab_debug says of a cache.
#   in        rdi = name
#   out       eax = SLAB_* flags, edx = 1 when an O was anywhere
#   clobbers  rcx rsi rdi r8-r11
slab_debug_flags:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov r8, rdi                         # r8 = name
    mov rsi, [rip + boot_params]
    add rsi, boot_info.slab_debug       # rsi = next character
    xor r9d, r9d                        # r9d = flags of the last block without names
    xor r10d, r10d                      # r10d = flags of the block that names the cache
    xor r11d, r11d                      # r11d = 1 when there is one
    xor r12d, r12d                      # r12d = 1 for an O

    # 1. A block's letters.
.Lslab_debug_flags_block:
    xor ebx, ebx                        # ebx = flags of the block
    mov al, [rsi]
    test al, al
    jz .Lslab_debug_flags_done
    inc rsi
    cmp al, ';'
    je .Lslab_debug_flags_block
    dec rsi
    cmp al, ','
    jne .Lslab_debug_flags_letter
    mov ebx, SLAB_DEBUG_DEFAULT_FLAGS
.Lslab_debug_flags_letter:
    mov al, [rsi]
    test al, al
    jz .Lslab_debug_flags_all
    inc rsi
    cmp al, ';'
    je .Lslab_debug_flags_all
    cmp al, ','
    je .Lslab_debug_flags_name
    or al, 0x20                         # lower case; '-' stays '-'
    lea rdi, [rip + slab_debug_letters]
.Lslab_debug_flags_search:
    mov ecx, [rdi]
    test ecx, ecx
    jz .Lslab_debug_flags_letter        # unknown
    cmp cl, al
    lea rdi, [rdi + 8]
    jne .Lslab_debug_flags_search
    mov ecx, [rdi + -4]
    or ebx, ecx
    cmp al, 'o'
    sete cl
    or r12b, cl
    cmp al, '-'
    jne .Lslab_debug_flags_letter
    xor ebx, ebx
    jmp .Lslab_debug_flags_letter
.Lslab_debug_flags_all:
    mov r9d, ebx
    test al, al
    jnz .Lslab_debug_flags_block
    jmp .Lslab_debug_flags_done

    # 2. Its names: compare with each, up to a *, or to the end of both.
.Lslab_debug_flags_name:
    mov rdi, r8
.Lslab_debug_flags_compare:
    mov al, [rsi]
    mov cl, [rdi]
    cmp al, '*'
    je .Lslab_debug_flags_match
    call .Lslab_debug_flags_is_end
    je .Lslab_debug_flags_name_end
    cmp al, cl
    jne .Lslab_debug_flags_skip
    inc rsi
    inc rdi
    jmp .Lslab_debug_flags_compare
.Lslab_debug_flags_name_end:
    test cl, cl
    jnz .Lslab_debug_flags_skip
.Lslab_debug_flags_match:
    test r11d, r11d
    jnz .Lslab_debug_flags_skip
    mov r10d, ebx
    mov r11d, 1
.Lslab_debug_flags_skip:
    mov al, [rsi]
    call .Lslab_debug_flags_is_end
    je .Lslab_debug_flags_skipped
    inc rsi
    jmp .Lslab_debug_flags_skip
.Lslab_debug_flags_skipped:
    test al, al
    jz .Lslab_debug_flags_done
    inc rsi
    cmp al, ','
    je .Lslab_debug_flags_name
    jmp .Lslab_debug_flags_block

.Lslab_debug_flags_done:
    mov eax, r9d
    test r11d, r11d
    cmovnz eax, r10d
    mov edx, r12d
    pop r12
    pop rbx
    pop rbp
    ret

    # ZF = 1 when al ends a name
.Lslab_debug_flags_is_end:
    test al, al
    je .Lslab_debug_flags_is_end_out
    cmp al, ','
    je .Lslab_debug_flags_is_end_out
    cmp al, ';'
.Lslab_debug_flags_is_end_out:
    ret

# void slab_debug_layout(struct kmem_cache *cache, u32 flags)
# Decide on a new cache's flags, and lay its slabs out.
#   in        rdi = cache with name, object_size, align and ctor, esi = flags that its maker wants
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_debug_layout:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    mov r12d, esi                       # r12 = flags
    mov r14d, [rbx + kmem_cache.align]  # r14 = align that its maker wants
    xor r13d, r13d                      # r13 = 1 for an O
    test r12d, SLAB_NO_USER_FLAGS
    jnz .Lslab_debug_layout_flags
    lea rdi, [rbx + kmem_cache.name]
    call slab_debug_flags
    or r12d, eax
    mov r13d, edx
.Lslab_debug_layout_flags:
    mov eax, r12d
    test eax, SLAB_DEBUG_FLAGS
    jz .Lslab_debug_layout_plain
    or eax, SLAB_NO_MAGAZINES
.Lslab_debug_layout_plain:
    mov [rbx + kmem_cache.flags], eax
    mov [rbx + kmem_cache.align], r14d
    mov rdi, rbx
    call slab_layout

    # With O, a slab that cannot have as few pages as without debugging goes without what takes room.
    test r13d, r13d
    jz .Lslab_debug_layout_out
    xor r13d, r13d
    mov edi, [rbx + kmem_cache.size]
    call .Lslab_debug_layout_order
    mov edx, eax
    mov edi, [rbx + kmem_cache.object_size]
    call .Lslab_debug_layout_order
    cmp edx, eax
    jbe .Lslab_debug_layout_out
    mov eax, SLAB_DEBUG_METADATA_FLAGS
    not eax
    and r12d, eax
    jmp .Lslab_debug_layout_flags
.Lslab_debug_layout_out:
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

    # eax = log2 of the pages that edi bytes need
.Lslab_debug_layout_order:
    dec edi
    shr edi, PAGE_SHIFT
    xor eax, eax
    bsr edi, edi
    jz .Lslab_debug_layout_page
    lea eax, [rdi + 1]
.Lslab_debug_layout_page:
    ret

.rodata
.p2align 2
slab_debug_letters:                     # letter, flag
    .long 'f', SLAB_CONSISTENCY_CHECKS
    .long 'z', SLAB_RED_ZONE
    .long 'p', SLAB_POISON
    .long 'u', SLAB_STORE_USER
    .long 't', SLAB_TRACE
    .long 'a', SLAB_FAILSLAB
    .long 'o', 0
    .long '-', 0
    .long 0, 0
