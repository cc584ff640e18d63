"""Sound C reads unwritten bytes: padding, neighbours of bit-fields. It is not accused; what is wrong still is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sandbox
from sandbox.errors import ShadowError

SOUND = """
#include <stdlib.h>
struct padded { char c; long l; short s; };
struct bits { unsigned a : 3, b : 7; int : 0; unsigned char c : 1, d : 4; };
static int order(const void *x, const void *y)
{
    return (int)((const struct padded *)x)->l - (int)((const struct padded *)y)->l;
}
int copies(void)
{
    struct padded *p = malloc(sizeof *p), *q = malloc(sizeof *q);
    p->c = 1, p->l = 2, p->s = 3;
    *q = *p;
    return q->c + (int)q->l + q->s;
}
int sets_bits(void)
{
    struct bits *b = malloc(sizeof *b);
    b->a = 5;
    b->d = 9;
    b->b = 100;
    return b->a + b->b + b->d;
}
int sorts(void)
{
    struct padded *p = malloc(5 * sizeof *p);
    for (int i = 0; i < 5; i++)
        p[i].c = (char)i, p[i].l = 10 - i, p[i].s = 7;
    qsort(p, 5, sizeof *p, order);
    return (int)p[0].l;
}
int unwritten(void)
{
    int *p = malloc(4 * sizeof *p);
    p[0] = p[1] = p[3] = 1;
    return p[0] + p[2];
}
int counts_up(void)
{
    struct bits *b = malloc(sizeof *b);
    int *p = malloc(sizeof *p);
    ++*p;
    return *p + (b != 0);
}
"""


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_sound_c_is_not_accused_and_a_variable_without_a_value_is(cc: str, level: str, tmp_path: Path) -> None:
    if shutil.which(cc) is None:
        pytest.skip(f"{cc} is not here")
    (tmp_path / "sound.c").write_text(SOUND)
    with sandbox.boot(modules=[tmp_path / "sound.c"], cc=cc, cflags=level, shadow=True) as kernel:
        assert [kernel.call(name) for name in ("copies", "sets_bits", "sorts")] == [6, 114, 6]
        for name in ("unwritten", "counts_up"):
            with pytest.raises(ShadowError, match=rf"uninitialized-read: {name}\+") as caught:
                kernel.call(name)
            assert caught.value.kind == "uninitialized-read"
            kernel.rewind()
