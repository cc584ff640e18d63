/* Why the last call failed. One for each linked image, as there is one thread. */
#include <errno.h>

int errno;
