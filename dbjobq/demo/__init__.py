"""`dbjobq demo`: the queue at work on real files, and proof that it lost none.

files    the files to read
jobs     the job functions, which read one file each
totals   the sums over all files
stage    a server, a schema, worker processes, and their own notes (built from `dbjobq.rig`)
run      the story
rate     jobs a second
report   the figures and sentences at the end
"""
