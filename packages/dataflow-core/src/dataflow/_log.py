"""Log events through structlog, imported on the first event; to stderr unless the application configured it."""

import sys
from typing import Any


def event(name: str, **keys: Any) -> None:
    """Log an event named ``noun.verb``; never pass values of rows or secrets."""
    import structlog

    configured = structlog.is_configured()
    logger = (
        structlog.get_logger("dataflow") if configured else structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
    )
    logger.info(name, **keys)
