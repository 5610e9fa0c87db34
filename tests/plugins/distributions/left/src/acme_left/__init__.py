"""A plugin in conflict with one of the other side."""
