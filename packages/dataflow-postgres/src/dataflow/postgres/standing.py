"""What programs ask of their session besides plain SQL: what holds beyond a transaction, where they stand, and to wait.

Words for `Command.returns`, besides those of `dataflow.dialect`; `dataflow.postgres.session` carries them out.
"""

from dataflow.dialect import STANDING, Command

KEPT = "kept"
"""Of a statement that leaves something in the session beyond its transaction, a lock or a setting: rows. The connection
is reset before others get it; behind a pooler in transaction mode, it is refused."""
WAITING = "waiting"
"""To wait for some seconds, without asking the server: pg_sleep would hold a snapshot, which others wait for."""
STANDS = Command("-- where is this program?", STANDING)
"""Asks whether a transaction is open, without asking the server."""
WAIT = Command("-- wait", WAITING)
SCHEMA_LOCK = 7_022_315_511_034_981
"""Any number; the same for every process that creates or changes tables, be it for a transaction or for a session."""
