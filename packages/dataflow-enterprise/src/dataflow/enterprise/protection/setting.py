"""The setting `protection`: which policy a DataFlow has, whatever form it was given in."""

import os
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dataflow.enterprise.protection.policy import Protection
from dataflow.errors import ConfigurationError

if TYPE_CHECKING:
    from dataflow.config import Config
    from dataflow.engine import DataFlow

_POLICIES: dict[int, Protection] = {}
"""id of a Config -> its policy: one object for all that ask, so that they share its switch."""


def protection_of(config: "Config") -> Protection | None:
    """Return the policy of a DataFlow's settings, or None.

    Raises:
        ConfigurationError: it is no policy, or a faulty one.
    """
    given = config["protection"]
    if given is None:
        return None
    found = _POLICIES.get(id(config))
    if found is None:
        found = _POLICIES[id(config)] = _read(given)
        weakref.finalize(config, _POLICIES.pop, id(config), None)
    return found


def policy_of(db: "DataFlow") -> Protection | None:
    """Return the policy of a DataFlow, to freeze and thaw it, or None where it has none."""
    return protection_of(db.config)


def _read(given: object) -> Protection:
    if isinstance(given, Protection):
        return given
    if isinstance(given, Mapping):
        return Protection.from_dict(given)
    if isinstance(given, (str, os.PathLike)):
        return Protection.from_toml(given)
    msg = f"the setting 'protection' takes a Protection, a dict or the path of a TOML file, got {type(given).__name__}"
    raise ConfigurationError(msg, hint="write DataFlow(protection='protection.toml')", code="bad-setting")
