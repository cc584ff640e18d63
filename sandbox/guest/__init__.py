"""Our kernel as a guest of the machine: booted, called, run, read, and taken back after a mistake."""
