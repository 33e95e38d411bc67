"""The queue at work on real files, and proof that it lost none: what `dbjobq demo` shows.

files    which files there are to read
jobs     what is to be done with one: the job functions
totals   all of it together
stage    a server, a schema, worker processes; all gone at the end
run      the story
progress what is shown meanwhile
report   what is printed at the end
"""
