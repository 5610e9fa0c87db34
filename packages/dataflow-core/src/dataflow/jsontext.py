"""JSON as text, written the one way it is stored, and read exactly.

The codec is msgspec's: of the fast ones it is the one that reads and writes integers of any size without loss. It
loads on first use.
"""

import json
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msgspec.json import Decoder, Encoder


@cache
def _encoder() -> "Encoder":
    from msgspec.json import Encoder

    return Encoder(order="sorted")


@cache
def _decoder() -> "Decoder[Any]":
    from msgspec.json import Decoder

    return Decoder()


def dump_json(value: Any) -> str:
    """Write canonical JSON text: keys sorted by code point, no spaces.

    Args:
        value: as `dataflow.canonical.canonical_json` returns it; of anything else nothing is checked.
    """
    return _encoder().encode(value).decode()


def dump_json_column(values: list[Any]) -> list[str]:
    """Write many values as `dump_json` does, in one call of the codec."""
    return _encoder().encode_lines(values).decode().split("\n")[:-1]


def dump_instants(values: list[datetime]) -> list[str]:
    """Write aware UTC datetimes as ``isoformat(timespec="microseconds")`` does, in one call of the codec."""
    if set(map(type, values)) != {datetime}:  # the codec refuses subclasses
        return [value.isoformat(timespec="microseconds") for value in values]
    texts = _encoder().encode(values).decode()[2:-2].split('","')
    return [f"{text[:-1]}+00:00" if len(text) == _WITH_FRACTION else f"{text[:-1]}.000000+00:00" for text in texts]


_WITH_FRACTION = len("2025-01-31T12:00:00.000001Z")


def load_json(text: str) -> Any:
    """Read JSON text, also such as others write that is not JSON in the strict sense (1e400, NaN).

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return _decoder().decode(text)
    except Exception:  # noqa: BLE001  # msgspec's errors have no common base that is a ValueError
        return json.loads(text)
