"""Labels for records: a plugin as a stranger would write it."""
