/* The time, which nothing here knows: every run is the same. */
#include <time.h>

time_t time(time_t *result)
{
    if (result != NULL)
        *result = -1;
    return -1;
}

clock_t clock(void)
{
    return -1;
}
