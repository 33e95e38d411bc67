"""The one connection that a worker works over, and the one that its heartbeats have."""
