"""Reading the allocator: the second of two independent readings, from guest bytes alone."""
