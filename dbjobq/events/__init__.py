"""What is logged, and to which logger."""
