"""Texts that name the extra to install. Read only while an error is composed; behaviour never depends on it."""

from functools import lru_cache
from typing import Any

INSTALL = "pip install 'workflow-dataflow[{extra}]'"
"""How to install an extra. Until the distribution names are owned, `CHECKOUT` says what works instead."""

CHECKOUT = "not on the public index yet: pip install ./packages/dataflow-{extra} in a checkout of the project"


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    import tomllib
    from importlib.resources import files

    return tomllib.loads(files("dataflow.plugins").joinpath("hints.toml").read_text(encoding="utf-8"))


def extra_for(section: str, name: str) -> str:
    """Return "install …" for a setting, capability or scheme; "" when no package is known to provide it."""
    extra = _table().get(section, {}).get(name)
    return f"install it: {INSTALL.format(extra=extra)} ({CHECKOUT.format(extra=extra)})" if extra else ""
