"""The command line: quick commands in this process, workers and the demo in processes of their own."""
