"""What `dbjobq worker` does with its processes: it starts, watches, reloads and stops them."""
