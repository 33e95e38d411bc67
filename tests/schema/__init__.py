"""The tables' migrations."""
