"""Faulty plugins."""
