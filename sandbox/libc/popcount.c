/* What compilers call to count bits where the processor need not have an instruction for it (libgcc's names). */
int __popcountdi2(long value);
int __popcountsi2(int value);

/* Neighbouring counts are added: of 1 bit each, of 2, of 4; the product puts the sum of all bytes on top. */
int __popcountdi2(long value)
{
    unsigned long bits = (unsigned long)value;

    bits -= bits >> 1 & 0x5555555555555555;
    bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
    bits = (bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return (int)(bits * 0x0101010101010101 >> 56);
}

int __popcountsi2(int value)
{
    return __popcountdi2((long)(unsigned int)value);
}
