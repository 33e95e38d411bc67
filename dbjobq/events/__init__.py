"""What happens in a worker, as a table of events; how they are told, and to which loggers."""
