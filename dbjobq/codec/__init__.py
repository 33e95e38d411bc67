"""How arguments and results are stored as text."""
