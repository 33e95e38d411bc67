"""The tests of dbjobq."""
