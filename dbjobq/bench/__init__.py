"""How fast it is on a given server, next to bare SQL in the same minute: what `dbjobq bench` measures.

jobs     the job functions
bare     the yardstick: the least SQL that could be called a queue
meter    what the server spends: WAL, CPU
stage    a server, a schema, a worker process; all gone at the end
enqueue, drain, latency, backlog, gate    the measurements
run      the rounds
report   what is printed at the end
"""
