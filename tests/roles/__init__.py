"""Tests of the database roles."""
