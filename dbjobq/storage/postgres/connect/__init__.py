"""Connections to PostgreSQL: made, shared, bounded in time and given up."""
