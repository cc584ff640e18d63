# A program for the sandbox. Run it, and see every allocation:  sandbox run FILE
#
# main is called once the kernel is up, in the manner of C (System V): return 0 in eax for success, anything else for
# failure. Arguments go to rdi rsi rdx rcx r8 r9, the result comes in rax. A function may change rax rcx rdx rsi rdi
# r8-r11; it must bring back rbx rbp r12-r15 and rsp. Every function of the kernel can be called by name:
#
#   void *kmalloc(size_t size)          void kfree(void *object)          size_t ksize(void *object)
#   int kprintf(const char *format, ...), with %d %u %x %lx %s %c %p %%
#   struct kmem_cache *kmem_cache_create(const char *name, size_t size, size_t align, u32 flags, ctor)
#   void *kmem_cache_alloc(struct kmem_cache *cache)      void kmem_cache_free(struct kmem_cache *cache, void *object)
#   void *get_free_pages(u32 order)     void free_pages(void *address, u32 order)
#
# Read any of them:  sandbox disasm kmalloc

.text

main:
    push rbp                            # a frame, so that a backtrace finds its way
    mov rbp, rsp
    push rbx                            # two registers to keep things in across calls; two pushes, so that
    push r12                            # rsp stays a multiple of 16 at each call

    # 1. Ask for 100 bytes. 0 would mean that no memory is left.
    mov edi, 100
    call kmalloc
    test rax, rax
    jz .Lmain_failed
    mov rbx, rax                        # rbx = object

    # 2. Say where it is.
    lea rdi, [rip + message]            # a label's address: always lea with rip
    mov rsi, rbx
    call kprintf

    # 3. Use it, and give it back. Take this call out, and the run ends with "still in use".
    mov byte ptr [rbx], 42
    mov rdi, rbx
    call kfree

    xor eax, eax                        # success
.Lmain_out:
    pop r12
    pop rbx
    pop rbp
    ret
.Lmain_failed:
    mov eax, 1                          # failure
    jmp .Lmain_out

.rodata
message:
    .asciz "an object of 100 bytes is at %p\n"
