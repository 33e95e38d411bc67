"""Events: a table of all that a worker may log, the loggers, and subscribers that hear of each."""
