"""One worker at work, on an event loop. No SQL is here; threads and processes run beside the loop where they must."""
