"""Jobs in PostgreSQL: what a call sends (`bulk`, `looks`, `steps`), and how it is made (`request`, `callers`)."""
