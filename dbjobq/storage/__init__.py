"""Where jobs are kept: the port (`base`) and what implements it."""
