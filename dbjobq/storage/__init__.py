"""Where jobs are kept: the port (`base`, `worker_port`) and the storages that implement it."""
