"""The pure modules."""
