"""Soft delete: a deleted record stays in its table, hidden, until it is restored or purged."""
