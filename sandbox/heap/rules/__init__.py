"""The rules of a sound heap: reading what is there (:mod:`.evidence`), and judging it, one idea in each module."""
