"""Faults by the dozen, under a ledger: what was acknowledged, what ran, and what the tables say in the end.

`schedule` says which faults there are and when they come (pure, from a seed); `faults` makes them; `world` is what they
are made in: servers, proxies, PgBouncer, workers, producers. Each process writes down what it does (`ledger`), and in
the end `verify` compares that with the tables (pure). `python -m tests.chaos --minutes 10` does more of it.
"""
