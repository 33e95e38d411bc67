"""Jobs in SQLite, for development and tests: one wide table."""
