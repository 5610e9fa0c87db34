"""JSON as text, written the one way it is stored, and read exactly.

The codec is msgspec's: of the fast ones it is the one that reads and writes integers of any size without loss. A module
of its own, because `import dataflow` must not load it.
"""

import json
from collections.abc import Callable
from typing import Any

from msgspec.json import Decoder, Encoder

encode_json: Callable[[Any], bytes] = Encoder(order="sorted").encode
"""Write canonical JSON as UTF-8; see `dump_json`."""
_decode: Callable[[str], Any] = Decoder().decode


def dump_json(value: Any) -> str:
    """Write canonical JSON text: keys sorted by code point, no spaces.

    Args:
        value: as `dataflow.canonical.canonical_json` returns it; of anything else nothing is checked.
    """
    return encode_json(value).decode()


def load_json(text: str) -> Any:
    """Read JSON text, also such as others write that is not JSON in the strict sense (1e400, NaN).

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return _decode(text)
    except Exception:  # noqa: BLE001  # msgspec's errors have no common base that is a ValueError
        return json.loads(text)
