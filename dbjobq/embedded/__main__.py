"""`python -m dbjobq.embedded [DIRECTORY]`: a server until Ctrl-C."""

from __future__ import annotations

from dbjobq.embedded.server import main

if __name__ == "__main__":
    main()
