"""How migrations read and change a PostgreSQL schema: catalogue, steps with their locks, and safe ways to make them.

Implements `dataflow.changes.SchemaEditor`; knows neither models nor the engine that compares catalogues.
"""
