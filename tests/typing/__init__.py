"""What the type checkers must accept, and refuse."""
