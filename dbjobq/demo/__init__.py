"""The queue at work on real files, and proof that it lost none: what `dbjobq demo` shows.

files    which files there are to read
jobs     what is to be done with one: the job functions
totals   all of it together
stage    a server, a schema, worker processes, and what these note (built from `dbjobq.rig`)
run      the story
rate     how fast it goes meanwhile
report   what is printed at the end
"""
