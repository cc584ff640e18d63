"""Text to bytes and back: an assembler front-end over Keystone or GNU as, and a disassembler over Capstone."""
