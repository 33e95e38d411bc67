"""`python -m dbjobq.events` prints the page of events, docs/events.md."""

import sys

from dbjobq.events.page import page

sys.stdout.write(page())
