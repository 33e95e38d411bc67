"""`dbjobq worker`: serves in this process, or starts, watches, reloads and stops several."""
