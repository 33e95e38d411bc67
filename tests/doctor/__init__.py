"""Tests of the doctor: each condition is produced, on a server that is sound otherwise."""
