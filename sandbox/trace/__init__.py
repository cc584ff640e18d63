"""What happened: a record of every call of the allocator, made by hooks that the guest does not notice."""
