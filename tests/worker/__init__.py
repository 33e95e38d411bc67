"""Tests of `Worker`: real threads, real processes, a real server."""
