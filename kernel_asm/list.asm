# Doubly linked, circular lists, as in Linux's include/linux/list.h.
#
#          head                 entry A              entry B
#      +-----------+        +-----------+        +-----------+
#   +->| next      |------->| next      |------->| next      |--+
#   |  | prev      |<-------| prev      |<-------| prev      |  |
#   |  +-----------+        +-----------+        +-----------+  |
#   +-----------------------------------------------------------+
#
# A link points at another link, not at the structure around it. None of these functions takes a lock.

.text

# void list_init(struct list_head *head)
# Make the list empty: both links point at the head itself.
#   in        rdi = head
#   clobbers  nothing
list_init:
    mov [rdi + list_head.next], rdi
    mov [rdi + list_head.prev], rdi
    ret

# void list_add_tail(struct list_head *entry, struct list_head *head)
# Put an entry in front of the head: it becomes the last one.
#   in        rdi = entry, rsi = head
#   clobbers  rax rsi
list_add_tail:
    mov rsi, [rsi + list_head.prev]     # rsi = the last entry: the new one goes behind it
    jmp list_add

# void list_add(struct list_head *entry, struct list_head *head)
# Put an entry behind the head: it becomes the first one.
#   in        rdi = entry, rsi = head
#   clobbers  rax
list_add:
    mov rax, [rsi + list_head.next]     # rax = the entry that follows
    mov [rdi + list_head.next], rax
    mov [rdi + list_head.prev], rsi
    mov [rax + list_head.prev], rdi
    mov [rsi + list_head.next], rdi
    ret

# void list_del(struct list_head *entry)
# Take an entry out. Its links are poisoned: whoever follows them faults at an address that tells why.
#   in        rdi = entry
#   clobbers  rax rdx
list_del:
    mov rax, [rdi + list_head.next]
    mov rdx, [rdi + list_head.prev]
    mov [rax + list_head.prev], rdx
    mov [rdx + list_head.next], rax
    movabs rax, LIST_POISON1
    mov [rdi + list_head.next], rax
    movabs rax, LIST_POISON2
    mov [rdi + list_head.prev], rax
    ret
