"""The main job on real data: 336,776 flights out of New York City in 2013, loaded and queried through workflows.

Run it from the repository root with ``python -m examples.flights`` (or ``./dev demo``); ``DATABASE_URL`` chooses the
database: SQLite, or PostgreSQL with the same result. Read the modules in this order:

1. `models`: annotated classes become tables and workflow nodes.
2. `data`: the CSV files as rows (nothing of DataFlow in it).
3. `load`: one workflow of BulkCreate nodes, with a progress bar.
4. `report`: changes, upserts, lists, filters through relations, aggregates.
5. `raw` and `check`: what the driver alone takes for the same rows, and whether it finds the same numbers.
"""
