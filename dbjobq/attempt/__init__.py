"""One attempt of one job: from a claim to the call of its function, and from that call's end to the outcome."""
