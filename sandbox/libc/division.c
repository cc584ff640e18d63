/*
 * Division of 128 bits, which no instruction does: long division, one bit of the quotient at a time (libgcc's names).
 *
 *   rest    |<- bits of the dividend that were taken down, less what was divided off ->|
 *   low     |<- bits to come, on the left ->|<- bits of the quotient, on the right ->|
 */
typedef unsigned __int128 u128;
typedef __int128 s128;

u128 __udivmodti4(u128 dividend, u128 divisor, u128 *remainder);
u128 __udivti3(u128 dividend, u128 divisor);
u128 __umodti3(u128 dividend, u128 divisor);
s128 __divti3(s128 dividend, s128 divisor);
s128 __modti3(s128 dividend, s128 divisor);

u128 __udivmodti4(u128 dividend, u128 divisor, u128 *remainder)
{
    u128 rest = 0, low = dividend;

    if (divisor == 0)
        __builtin_trap();
    for (int bit = 0; bit < 128; bit++) {
        u128 carried = rest >> 127;             /* a divisor of 128 bits leaves a rest of as many */

        rest = rest << 1 | low >> 127;
        low <<= 1;
        if (carried != 0 || rest >= divisor) {
            rest -= divisor;
            low |= 1;
        }
    }
    if (remainder != (u128 *)0)
        *remainder = rest;
    return low;
}

u128 __udivti3(u128 dividend, u128 divisor)
{
    return __udivmodti4(dividend, divisor, (u128 *)0);
}

u128 __umodti3(u128 dividend, u128 divisor)
{
    u128 remainder;

    __udivmodti4(dividend, divisor, &remainder);
    return remainder;
}

static u128 magnitude(s128 value)
{
    return value < 0 ? -(u128)value : (u128)value;
}

s128 __divti3(s128 dividend, s128 divisor)
{
    u128 quotient = __udivti3(magnitude(dividend), magnitude(divisor));

    return (s128)((dividend < 0) != (divisor < 0) ? -quotient : quotient);
}

/* The remainder has the sign of the dividend (C11 6.5.5). */
s128 __modti3(s128 dividend, s128 divisor)
{
    u128 remainder = __umodti3(magnitude(dividend), magnitude(divisor));

    return (s128)(dividend < 0 ? -remainder : remainder);
}
