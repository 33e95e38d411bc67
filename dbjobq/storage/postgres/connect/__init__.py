"""How a connection to PostgreSQL is had, shared, bounded in time and given up."""
