-- ties: what hangs on the end of a job, as bits (values.py); 0 for most jobs, whose end is then the cheapest to write.
(body.unique_key is not null)::int
