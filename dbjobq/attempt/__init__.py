"""One attempt of one job: from a claim to the call of its function, and from what that did to what is written."""
