"""Audit: every change of an audited model, recorded by the database itself, chained by hashes, and read back.

The triggers are the dialect's (`Dialect.watch`); here stands what asks for them (`feature`), what tells them who acts
(`guard`), what reads the log (`trail`, `replay`), and what proves it whole (`chain`, `log`).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflow.enterprise.audit.chain import Checkpoint, Fault, Report
    from dataflow.enterprise.audit.feature import Audit, features
    from dataflow.enterprise.audit.guard import AuditGuard
    from dataflow.enterprise.audit.log import AuditLog, AuditLogSync
    from dataflow.enterprise.audit.trail import nodes

__all__ = [
    "Audit",
    "AuditGuard",
    "AuditLog",
    "AuditLogSync",
    "Checkpoint",
    "Fault",
    "Report",
    "features",
    "nodes",
]
_HOMES = {
    "Audit": "feature",
    "AuditGuard": "guard",
    "AuditLog": "log",
    "AuditLogSync": "log",
    "Checkpoint": "chain",
    "Fault": "chain",
    "Report": "chain",
    "features": "feature",
    "nodes": "trail",
}


def __getattr__(name: str) -> object:
    """Import a name on first use: every DataFlow has the guard, few read the log."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
