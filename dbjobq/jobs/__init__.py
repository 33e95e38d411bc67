"""Job types: a function with its options, its retries and its context, and how a name in a row finds it."""
