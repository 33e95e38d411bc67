"""One worker at work: async, no SQL, no signals; threads for the heartbeat and for `def` jobs only."""
