"""TransactionScopeNode: its options. The runtime opens and ends the transaction."""

from collections.abc import Mapping
from typing import Any

import attrs

from dataflow.dialect import Dialect
from dataflow.errors import InputError


@attrs.frozen
class ScopeNode:
    """Options of a transaction scope.

    Attributes:
        isolation_level: standard name, or None for the database's default.
        timeout: seconds from begin to commit, or None.
        rollback_on_error: False commits what was done before the failure.
    """

    isolation_level: str | None = None
    timeout: float | None = None
    rollback_on_error: bool = True

    @classmethod
    def read(cls, params: Mapping[str, Any], dialect: Dialect) -> "ScopeNode":
        """Check the options of a node.

        Raises:
            InputError: a value does not fit.
        """
        level = params.get("isolation_level")
        if level is not None:
            level = str(level).upper().replace(" ", "_")
            if level not in dialect.isolation_levels:
                msg = f"there is no isolation level {level!r} on {dialect.name}"
                raise InputError(msg, hint=f"choose one of {', '.join(dialect.isolation_levels)}", code="bad-parameter")
        timeout = params.get("timeout")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0):
            msg = "timeout is a number of seconds above 0"
            raise InputError(msg, hint="write timeout=10", code="bad-parameter")
        rollback = params.get("rollback_on_error", True)
        if not isinstance(rollback, bool):
            msg = "rollback_on_error is True or False"
            raise InputError(msg, code="bad-parameter")
        return cls(level, None if timeout is None else float(timeout), rollback)
