# kmalloc and its kin: caches of general sizes, and whole pages beyond them.
#
#   size          0              1 ... 8192                        8193 ... 4 MiB
#   from          ZERO_SIZE_PTR  kmalloc-8 ... kmalloc-8k          get_free_pages
#
#   A pointer finds its way home by arithmetic alone: its frame's struct page names the cache (PG_SLAB) or tells that
#   it is a large allocation (PG_LARGE).

.text

# void kmalloc_init(void)
# Make the caches of kmalloc_info and the table from a size to its cache.
#   clobbers  rax rcx rdx rsi rdi r8-r11
kmalloc_init:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    lea rbx, [rip + kmalloc_info]       # rbx = struct kmalloc_info
    xor r12d, r12d                      # r12 = number of the cache
    lea r13, [rip + kmalloc_by_size]    # r13 = next entry of the table
.Lkmalloc_init_cache:
    mov rdi, [rbx + kmalloc_info.name]
    mov esi, [rbx + kmalloc_info.size]
    mov edx, [rbx + kmalloc_info.align]
    mov ecx, SLAB_KMALLOC | SLAB_BOOT
    xor r8d, r8d
    call kmem_cache_create_internal
    test rax, rax
    jz .Lkmalloc_init_failed
    lea rdx, [rip + kmalloc_caches]
    mov [rdx + r12 * 8], rax
    mov ecx, [rbx + kmalloc_info.size]
    lea rdx, [rip + kmalloc_by_size]
    lea rcx, [rdx + rcx]                # one entry of 8 bytes for each 8 bytes of size
.Lkmalloc_init_entry:
    mov [r13], rax
    add r13, 8
    cmp r13, rcx
    jb .Lkmalloc_init_entry
    add rbx, sizeof.kmalloc_info
    inc r12d
    cmp r12d, KMALLOC_CACHES
    jb .Lkmalloc_init_cache
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
.Lkmalloc_init_failed:
    mov rsi, [rbx + kmalloc_info.name]
    lea rdi, [rip + .Lkmalloc_init_message]
    call panic

# void *kmalloc(size_t size)
# Memory of at least size bytes, aligned to 8, and to size where that is a power of two.
#   in        rdi = size
#   out       rax = pointer; ZERO_SIZE_PTR for size 0; 0 when size is beyond KMALLOC_MAX_SIZE or no page is left
#   clobbers  rcx rdx rsi rdi r8-r11
kmalloc:
    lea rax, [rdi - 1]                  # 0 wraps around to the largest number
    cmp rax, KMALLOC_MAX_CACHE - 1
    ja .Lkmalloc_not_cached
    shr rax, 3
    mov rsi, rdi                        # rsi = size
    lea rcx, [rip + kmalloc_by_size]
    mov rdi, [rcx + rax * 8]            # rdi = cache
    magazine_pop kmalloc
    jmp slab_alloc

.Lkmalloc_not_cached:
    test rdi, rdi
    jnz kmalloc_large
    mov eax, ZERO_SIZE_PTR
    ret

# static void *kmalloc_large(size_t size)
# The smallest block of pages that holds size bytes.
#   in        rdi = size
#   out       rax = pointer or 0
#   clobbers  rcx rdx rsi rdi r8-r11
kmalloc_large:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    xor eax, eax
    cmp rdi, KMALLOC_MAX_SIZE
    ja .Lkmalloc_large_out
    mov rbx, rdi                        # rbx = size
    dec rdi
    shr rdi, PAGE_SHIFT
    bsr rdi, rdi
    inc edi                             # edi = order
    mov r12d, edi                       # r12 = order
    call get_free_pages
    test rax, rax
    jz .Lkmalloc_large_out
    mov rsi, rax                        # rsi = address
    mov rdi, rax
    call virt_to_page
    mov [rax + page.private], rbx
    mov ecx, r12d
    mov edx, 1
    shl edx, cl
.Lkmalloc_large_frame:
    or dword ptr [rax + page.flags], PG_LARGE
    add rax, sizeof.page
    dec edx
    jnz .Lkmalloc_large_frame
    mov rax, rsi
.Lkmalloc_large_out:
    pop r12
    pop rbx
    pop rbp
    ret

# void *kzalloc(size_t size)
# kmalloc, and every byte that ksize counts is 0.
#   in        rdi = size
#   out       rax = pointer, as kmalloc's
#   clobbers  rcx rdx rsi rdi r8-r11
kzalloc:
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    call kmalloc
    mov rbx, rax                        # rbx = pointer
    mov rdi, rax
    call requested_size
    mov rdx, rax
    mov rdi, rbx
    xor esi, esi
    test rdx, rdx
    jz .Lkzalloc_out
    call memset
.Lkzalloc_out:
    mov rax, rbx
    pop rbx
    pop rbx
    pop rbp
    ret

# void kfree(const void *pointer)
# Free what kmalloc or any cache gave. 0 and ZERO_SIZE_PTR are accepted; anything else that is not slab memory or a
# large allocation is a panic.
#   in        rdi = pointer
#   clobbers  rax rcx rdx rsi rdi r8-r11
kfree:
    cmp rdi, ZERO_SIZE_PTR
    jbe .Lkfree_nothing
    mov rax, rdi
    sub rax, [rip + direct_map]
    shr rax, PAGE_SHIFT                 # rax = frame number
    cmp rax, [rip + max_pfn]
    jae .Lkfree_bad
    shl rax, STRUCT_PAGE_SHIFT
    add rax, [rip + mem_map]            # rax = struct page
    test dword ptr [rax + page.flags], PG_SLAB
    jz .Lkfree_large
    mov rsi, rdi                        # rsi = object
    mov rdi, [rax + page.cache]
    magazine_push kfree
    jmp slab_free

.Lkfree_nothing:
    je .Lkfree_done
    test rdi, rdi
    jnz .Lkfree_bad                     # 1 to 15
.Lkfree_done:
    ret

.Lkfree_large:
    test dword ptr [rax + page.flags], PG_LARGE
    jz .Lkfree_bad
    test edi, PAGE_SIZE - 1
    jnz .Lkfree_inside
    cmp [rax + page.head], rax
    jne .Lkfree_inside
    push rbp
    mov rbp, rsp
    push rdi
    movzx esi, byte ptr [rax + page.order]
    mov rdi, rax
    call clear_page_use
    pop rdi
    pop rbp
    jmp free_pages

    # The frame lets the backtrace name who called.
.Lkfree_inside:
    push rbp
    mov rbp, rsp
    mov rsi, rdi                        # rsi = pointer
    mov rdi, [rax + page.head]
    call page_address
    mov rdx, rax
    lea rdi, [rip + .Lkfree_inside_message]
    call panic
.Lkfree_bad:
    push rbp
    mov rbp, rsp
    mov rsi, rdi
    lea rdi, [rip + .Lkfree_bad_message]
    call panic


.rodata
.p2align 3
kmalloc_info:                           # struct kmalloc_info: name, size, alignment
    .quad .Lkmalloc_8
    .long 8, 8
    .quad .Lkmalloc_16
    .long 16, 16
    .quad .Lkmalloc_32
    .long 32, 32
    .quad .Lkmalloc_64
    .long 64, 64
    .quad .Lkmalloc_96
    .long 96, 8
    .quad .Lkmalloc_128
    .long 128, 128
    .quad .Lkmalloc_192
    .long 192, 8
    .quad .Lkmalloc_256
    .long 256, 256
    .quad .Lkmalloc_512
    .long 512, 512
    .quad .Lkmalloc_1k
    .long 1024, 1024
    .quad .Lkmalloc_2k
    .long 2048, 2048
    .quad .Lkmalloc_4k
    .long 4096, 4096
    .quad .Lkmalloc_8k
    .long 8192, 4096

.Lkmalloc_8:    .asciz "kmalloc-8"
.Lkmalloc_16:   .asciz "kmalloc-16"
.Lkmalloc_32:   .asciz "kmalloc-32"
.Lkmalloc_64:   .asciz "kmalloc-64"
.Lkmalloc_96:   .asciz "kmalloc-96"
.Lkmalloc_128:  .asciz "kmalloc-128"
.Lkmalloc_192:  .asciz "kmalloc-192"
.Lkmalloc_256:  .asciz "kmalloc-256"
.Lkmalloc_512:  .asciz "kmalloc-512"
.Lkmalloc_1k:   .asciz "kmalloc-1k"
.Lkmalloc_2k:   .asciz "kmalloc-2k"
.Lkmalloc_4k:   .asciz "kmalloc-4k"
.Lkmalloc_8k:   .asciz "kmalloc-8k"

.Lkmalloc_init_message:
    .asciz "kmalloc_init: no memory for %s"
.Lkfree_bad_message:
    .asciz "kfree: 0x%016lx is not slab memory"
.Lkfree_inside_message:
    .asciz "kfree: 0x%016lx lies inside the large allocation at 0x%016lx"

.bss
.p2align 3
kmalloc_caches:                         # struct kmem_cache *kmalloc_caches[KMALLOC_CACHES]
    .rept KMALLOC_CACHES
    .zero 8
    .endr
kmalloc_by_size:                        # struct kmem_cache *kmalloc_by_size[KMALLOC_STEPS], by (size - 1) / 8
    .rept KMALLOC_STEPS
    .zero 8
    .endr
