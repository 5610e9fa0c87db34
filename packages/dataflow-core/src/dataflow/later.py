"""Names of the public API that belong to later releases: they are refused with `NotYetAvailable`, never ignored."""

from typing import Any, Final

from dataflow.errors import NotYetAvailable

SETTINGS: Final[dict[str, Any]] = {
    "query_cache_enabled": False,
    "cache_ttl": 300,
    "cache_backend": None,
    "encryption_enabled": False,
    "encryption_key": None,
    "gdpr_compliance": False,
    "data_retention_days": None,
    "read_replica_enabled": False,
}
"""Setting -> its default, the one value (besides False and None) that is accepted today."""

MODEL_OPTIONS: Final = frozenset({"encryption", "cache", "gdpr", "masking", "events"})
PARAMETERS: Final = frozenset({"cache_key", "cache_ttl", "cache_invalidation", "read_preference"})
NODES: Final = frozenset(
    {
        "CDCListenerNode",
        "DatabaseBackupNode",
        "DatabaseMonitorNode",
        "DatabaseRestoreNode",
        "EventProcessorNode",
        "EventSourceNode",
        "EventTriggerNode",
        "GDPRDeleteNode",
        "GDPRExportNode",
        "MonitoringNode",
        "PerformanceTestNode",
        "PerformanceTunerNode",
        "QueryOptimizerNode",
        "SlowQueryDetectorNode",
        "TestDataGeneratorNode",
        "TransactionManagerNode",
    }
)
NODE_SUFFIXES: Final = ("AnalyticsNode",)


def refuse(what: str, name: str, **where: str) -> NotYetAvailable:
    """Build the error for a name of a later release; `what` is "setting", "node type" or the like."""
    return NotYetAvailable(f"the {what} {name!r} is part of a later release", hint="leave it out for now", where=where)
