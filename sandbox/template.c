// A program for the sandbox. Run it, and see every allocation:  sandbox run FILE
//
// main is called once the kernel is up: return 0 for success, anything else for failure. Every function of the kernel
// can be called by name; sandbox.h declares them all, and the structures:
//
//   void *kmalloc(size_t size)          void kfree(const void *object)    size_t ksize(const void *object)
//   int kprintf(const char *format, ...), with %d %u %x %lx %s %c %p %%
//   struct kmem_cache *kmem_cache_create(const char *name, size_t size, size_t align, unsigned flags, ctor)
//   void *kmem_cache_alloc(struct kmem_cache *cache)      void kmem_cache_free(struct kmem_cache *cache, void *object)
//   void *get_free_pages(unsigned order)                  void free_pages(void *address, unsigned order)
//
// There is a small C library as well: stdint.h, stdlib.h (malloc and its family, on kmalloc), string.h, stdio.h (printf
// to the console), assert.h and some more; but no floating point. Your own Makefile takes its flags from  sandbox cflags
//
// Read any function of the kernel:  sandbox disasm kmalloc

#include <sandbox.h>
#include <stddef.h>

int main(void) {
    // 1. Ask for 100 bytes. NULL would mean that no memory is left.
    char *object = kmalloc(100);
    if (object == NULL)
        return 1;

    // 2. Say where it is.
    kprintf("an object of 100 bytes is at %p\n", object);

    // 3. Use it, and give it back. Take this call out, and the run ends with "still in use".
    object[0] = 42;
    kfree(object);

    return 0;
}
