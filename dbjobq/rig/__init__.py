"""What `demo` and `bench` stand on: a server, a schema of their own, worker processes; all gone at the end.

server     which server it is, or one of our own; a schema; signals while both are cleared away
workers    `dbjobq worker` in processes of their own
progress   what is shown meanwhile
percentile of what was measured
"""
