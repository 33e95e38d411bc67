"""A rig for `demo` and `bench`: a server, a schema of their own, worker processes; all gone at the end.

server      a named server or a private one; a schema; signals while both are cleared away
workers     `dbjobq worker` in processes of their own
progress    a bar on a terminal, or lines
percentile  percentiles of measured values
"""
