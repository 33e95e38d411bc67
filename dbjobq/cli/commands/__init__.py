"""The commands, one module each; `cli/group.py` lists them in the order in which `--help` does."""
