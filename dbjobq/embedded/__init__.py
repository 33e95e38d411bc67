"""A PostgreSQL server without an installation, for development, demonstrations and tests."""

from dbjobq.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
