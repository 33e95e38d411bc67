"""What the tests need beside the fixtures in conftest.py."""
