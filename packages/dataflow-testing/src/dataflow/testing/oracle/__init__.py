"""What every dialect must answer, computed once more in plain Python over lists of dicts.

Knows SPEC §4 and nothing of DataFlow's inside. `declare` registers two related models; `matches`, `ordered` and
`aggregated` answer questions about rows of them. `dataflow.testing.oracle.strategies` (needs hypothesis) makes rows
and questions; `dataflow.testing.differential` executes whole programs.
"""

from dataflow.testing.oracle.filters import like, matches
from dataflow.testing.oracle.models import (
    ENUMS,
    FIELDS,
    INT_MAX,
    INT_MIN,
    KINDS,
    NUMERIC,
    ORDERED,
    RELATIONS,
    SHOP,
    Color,
    Level,
    declare,
)
from dataflow.testing.oracle.results import FUNCTIONS, Overflow, aggregated, canonical, ordered, same_number
from dataflow.testing.oracle.values import accept, key_of, stored_text

__all__ = [
    "ENUMS",
    "FIELDS",
    "FUNCTIONS",
    "INT_MAX",
    "INT_MIN",
    "KINDS",
    "NUMERIC",
    "ORDERED",
    "RELATIONS",
    "SHOP",
    "Color",
    "Level",
    "Overflow",
    "accept",
    "aggregated",
    "canonical",
    "declare",
    "key_of",
    "like",
    "matches",
    "ordered",
    "same_number",
    "stored_text",
]
