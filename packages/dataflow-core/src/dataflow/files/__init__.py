"""Files in and out: rows of CSV, JSON Lines and Parquet files become records, and records such files.

`loading` and `dumping` do the work, on any database; `csvfiles`, `jsonlines` and `parquet` know one format each,
`texts` the text of a value, `places` files and how they are told apart, `rejects` the rows that were refused, `journal`
how far a load has come. The commands ``dataflow load`` and ``dataflow dump`` are these functions.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataflow.files.dumping import dump as dump
    from dataflow.files.loading import load as load

__all__ = ["dump", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from dataflow.files.loading import load

        return load
    if name == "dump":
        from dataflow.files.dumping import dump

        return dump
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
