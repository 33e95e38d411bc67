"""A user's package, for the tests of the registry."""
