"""The public queues: what a producer calls, sync and async."""
