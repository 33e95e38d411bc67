"""What PostgreSQL keeps, fences and plans."""
