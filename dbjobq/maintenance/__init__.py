"""Duties: what workers do for all of them, without a leader, each in a thread of its own; a file a duty."""
