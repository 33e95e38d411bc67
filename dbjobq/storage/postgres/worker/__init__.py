"""A worker's side of PostgreSQL: the connection that it works over, and that of its heartbeat."""
