"""What a job type is: its function, its options, its retries, its context, and how a name in a row finds it."""
