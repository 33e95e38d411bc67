"""A module whose import fails."""

raise RuntimeError("the import broke")
