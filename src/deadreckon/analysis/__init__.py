"""What went wrong where a thread died: the address, the access, the instruction, and what they suggest."""
