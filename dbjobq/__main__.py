"""`python -m dbjobq`: the command line."""

from __future__ import annotations

from dbjobq.cli import main

if __name__ == "__main__":
    main(prog_name="dbjobq")
