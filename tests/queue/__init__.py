"""JobQueue and AsyncJobQueue, by one suite."""
