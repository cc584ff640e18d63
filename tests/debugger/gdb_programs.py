"""What several programs of gdb's tests begin with: a routine that shows another frame at the same address."""

WINDOW = 0xFFFF_D000_1234_5000
SHOW = f"""\
.set WINDOW, {WINDOW:#x}
.text
# int show(u64 *page)
# Map a page, given by its address in the direct map, at WINDOW.
show:
    push rbp
    mov rbp, rsp
    mov rsi, DIRECT_MAP
    sub rdi, rsi
    mov rsi, rdi
    mov rdi, WINDOW
    mov rdx, 0x8000000000000003
    call map_page
    pop rbp
    ret
"""
