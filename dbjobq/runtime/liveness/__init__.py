"""Whether a worker lives: heartbeats, a blocked event loop and who takes its place, jobs that do not end."""
