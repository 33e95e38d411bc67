"""Jobs in processes of their own (`executor='process'`): the pool, one process, and what runs in it."""
