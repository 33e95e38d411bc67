"""`dbjobq bench`: how fast the queue is on a given server, next to bare SQL in the same minute.

jobs     the job functions
bare     the yardstick: the least SQL that could be called a queue
meter    the server's expense: WAL, CPU
stage    a server, a schema, a worker process; all gone at the end
enqueue, drain, latency, backlog, gate    the measurements
run      the rounds
report   the tables at the end
"""
