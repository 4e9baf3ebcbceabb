/* even_share.h - n items in as many runs as there are parts, their lengths at most one apart. */
#ifndef EVEN_SHARE_H
#define EVEN_SHARE_H

/* The first item of a part; of part `parts`: n. */
DEVICE u32 even_share(u32 n, u32 parts, u32 part)
{
    return n / parts * part + LESSER(part, n % parts);
}

/* The part that has an item; parts at most n. */
DEVICE u32 even_part(u32 n, u32 parts, u32 item)
{
    const u32 each = n / parts, longer = n % parts * (each + 1);
    return item < longer ? item / (each + 1) : n % parts + (item - longer) / each;
}

#endif
