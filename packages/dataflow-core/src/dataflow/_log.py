"""Log events through structlog, imported on the first event; to stderr unless the application configured it."""

import sys
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _stderr() -> Any:
    import structlog

    return structlog.wrap_logger(structlog.PrintLogger(sys.stderr))


def event(name: str, **keys: Any) -> None:
    """Log an event named ``noun.verb``; never pass values of rows or secrets."""
    import structlog

    logger = structlog.get_logger("dataflow") if structlog.is_configured() else _stderr()
    logger.info(name, **keys)
