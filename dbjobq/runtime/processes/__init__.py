"""Jobs in processes of their own (`executor='process'`): the pool, one process, and the code that runs in it."""
