"""Going there: a run's past moments, one instruction in words, names for every byte, and gdb."""
