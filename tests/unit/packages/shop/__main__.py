"""A program: nothing that a row names may run it."""

raise KeyboardInterrupt
