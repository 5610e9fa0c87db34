"""Audit: every change of an audited model, recorded by the database itself, chained by hashes, and read back.

The triggers are the dialect's (`Dialect.watch`); here stands what asks for them (`feature`), what tells them who acts
(`guard`), what reads the log (`trail`, `replay`), and what proves it whole (`chain`, `log`).
"""

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
