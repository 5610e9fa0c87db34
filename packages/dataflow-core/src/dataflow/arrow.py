"""Records as Arrow tables and back, exactly: what pandas, polars and DuckDB take and give.

Needs the extra ``arrow`` (pyarrow), which loads on first use. Bulk operations read any table that offers itself by the
Arrow PyCapsule interface through here; `to_arrow` makes a table of what a list returned. Knows no database.
"""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any, Literal

from dataflow import types as t
from dataflow.errors import InputError, MissingCapability, suggest
from dataflow.jsontext import dump_json
from dataflow.model import ModelSpec
from dataflow.plan.rows import ColumnRows

if TYPE_CHECKING:
    import pyarrow as pa

DECIMALS = (38, 18)
"""Digits of a Decimal in all, and after the point: what most tools that read Arrow hold."""
MARK = b"dataflow"
"""Key of a column's metadata that tells JSON documents and Decimals from other text."""
INSTALL = (
    "install the extra 'arrow': pip install 'workflow-dataflow-core[arrow]' (not on the public index yet:"
    " pip install './packages/dataflow-core[arrow]' in a checkout of the project)"
)
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


class DoesNotFit(InputError):
    """A Decimal has more digits than its column.

    Attributes:
        field: the field.
    """

    field = ""


def load_pyarrow(what: str) -> Any:
    """Import pyarrow.

    Raises:
        MissingCapability: it is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        msg = f"{what} needs pyarrow, which is not installed"
        raise MissingCapability(msg, hint=INSTALL, code="no-arrow") from error
    return pa


# -- records to Arrow ----------------------------------------------------------------------------------------------
def to_arrow(
    records: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    model: ModelSpec,
    *,
    fields: Sequence[str] | None = None,
    decimals: tuple[int, int] | Literal["text"] = DECIMALS,
) -> "pa.Table":
    """Return records as an Arrow table whose types are those of the model, also when there are none.

    Args:
        records: of one model, as results show them; or the result of a list that holds them.
        model: ``db.get_spec("User")``.
        fields: names of the columns; by default those of the first record, or all of the model's.
        decimals: digits in all and after the point of Decimals, (76, 38) at most; "text" writes any Decimal as text.

    Returns:
        The table. UUID and JSON become text, Enum a dictionary of texts, instants microseconds in UTC.

    Raises:
        InputError: a value fits neither the model nor `decimals`, or a record holds what the model does not.
        MissingCapability: pyarrow is not installed.
    """
    found = records["records"] if isinstance(records, Mapping) else records
    rows = list(found)
    names = list(fields) if fields is not None else list(rows[0]) if rows else list(model.fields)
    wanted = schema(model, names, decimals=decimals)
    pa = load_pyarrow("to_arrow()")
    try:
        columns = [column([row[name] for row in rows], model, name, wanted.field(name).type) for name in names]
    except KeyError as error:
        msg = f"a record lacks the field {error}"
        raise InputError(msg, hint="pass fields=[…], names that every record has", code="missing-field") from None
    return pa.Table.from_arrays(columns, schema=wanted)


def schema(
    model: ModelSpec,
    fields: Sequence[str] | None = None,
    *,
    decimals: tuple[int, int] | Literal["text"] = DECIMALS,
    as_text: Container[str] = (),
) -> "pa.Schema":
    """Return the Arrow schema of a model's records; see `to_arrow`. `as_text`: Decimals that are text anyway."""
    pa = load_pyarrow("the Arrow schema of a model")
    names = list(model.fields) if fields is None else list(fields)
    for name in names:
        if name not in model.fields:
            close = suggest(str(name), model.fields)
            hint = f"did you mean {close!r}?" if close else "name the model's fields: fields=[…]"
            raise InputError(f"model {model.name} has no field {name!r}", hint=hint, code="unknown-field")
    found = [
        (model.fields[name], arrow_type(pa, model.fields[name].type, "text" if name in as_text else decimals))
        for name in names
    ]
    return pa.schema([pa.field(spec.name, kind, spec.nullable, _metadata(spec.type, kind)) for spec, kind in found])


def _metadata(kind: t.FieldType, chosen: Any) -> dict[bytes, bytes] | None:
    texts = kind.storage == "json" or (kind.storage == "decimal" and str(chosen) == "string")
    return {MARK: kind.storage.encode()} if texts else None


def arrow_type(pa: Any, kind: t.FieldType, decimals: tuple[int, int] | str) -> Any:
    """Return the Arrow type of a field type."""
    if isinstance(kind, t.ArrayType):
        inner = pa.string() if kind.item.storage == "enum" else arrow_type(pa, kind.item, decimals)
        return pa.list_(inner)
    if kind.storage == "decimal" and not isinstance(decimals, str):
        return (pa.decimal128 if decimals[0] <= 38 else pa.decimal256)(*decimals)
    types: dict[str, Callable[[], Any]] = {
        "int": pa.int64,
        "float": pa.float64,
        "bool": pa.bool_,
        "bytes": pa.binary,
        "datetime": lambda: pa.timestamp("us", tz="UTC"),
        "date": pa.date32,
        "time": lambda: pa.time64("us"),
        "enum": lambda: pa.dictionary(pa.int32(), pa.string()),
    }
    return types.get(kind.storage, pa.string)()


def column(values: list[Any], model: ModelSpec, name: str, kind: Any) -> Any:
    """Return values of a field, as results show them, as an Arrow array.

    Raises:
        DoesNotFit: a Decimal has more digits than `kind`.
        InputError: a value is not of the field's type.
    """
    pa = load_pyarrow("to_arrow()")
    spec = model.fields[name]
    where = {"model": model.name, "field": name}
    try:
        plain = [None if value is None else _plain(spec.type, value) for value in values]
    except t.ValueRefused as refused:
        raise InputError(f"{name}: {refused.message}", hint=refused.hint, where=where, code="wrong-value") from None
    if str(kind).endswith("string") and spec.type.storage == "decimal":
        plain = [None if value is None else format(value, "f") for value in plain]
    if (
        isinstance(spec.type, t.ArrayType)
        and spec.type.item.storage == "decimal"
        and pa.types.is_string(kind.value_type)
    ):
        plain = [None if value is None else [format(item, "f") for item in value] for value in plain]
    try:
        if pa.types.is_dictionary(kind):
            return _dictionary(pa, plain, spec.type.choices, kind)
        return pa.array(plain, kind)
    except (pa.ArrowInvalid, ValueError) as error:
        msg = f"{name}: a Decimal has more digits than {kind} holds"
        misfit = DoesNotFit(msg, hint="pass decimals=(76, 38), or decimals='text'", where=where, code="does-not-fit")
        misfit.field = name
        raise misfit from error


def _dictionary(pa: Any, texts: list[str | None], choices: Sequence[str], kind: Any) -> Any:
    """Return texts as a dictionary of all choices, the same in every part of a table."""
    places = {text: place for place, text in enumerate(choices)}
    indexes = pa.array([None if text is None else places[text] for text in texts], kind.index_type)
    return pa.DictionaryArray.from_arrays(indexes, pa.array(list(choices), kind.value_type))


def _plain(kind: t.FieldType, value: Any) -> Any:
    """Return a value of a result as Arrow takes it."""
    accepted = kind.accept(value)
    if kind.storage == "json":
        return dump_json(accepted)
    if kind.storage == "uuid":
        return str(accepted)
    if isinstance(kind, t.ArrayType):
        return [_plain(kind.item, item) for item in accepted]
    return accepted


# -- Arrow to rows -------------------------------------------------------------------------------------------------
def read_rows(data: Any) -> ColumnRows:
    """Return all rows of a table that offers itself by the Arrow PyCapsule interface.

    Raises:
        InputError: it is no table, or holds values that Python cannot hold.
        MissingCapability: pyarrow is not installed.
    """
    pa = load_pyarrow("an Arrow table as data")
    reader = _reader(pa, data)
    return column_rows(pa, pa.Table.from_batches(_batches(pa, reader), reader.schema))


def parts(data: Any, size: int) -> Iterator[ColumnRows]:
    """Return the same rows, `size` at a time; see `read_rows`."""
    pa = load_pyarrow("an Arrow table as data")
    reader = _reader(pa, data)
    held: list[Any] = []
    rows = 0
    for batch in _batches(pa, reader):
        held.append(batch)
        rows += batch.num_rows
        if rows < size:
            continue
        table = pa.Table.from_batches(held, reader.schema)
        whole = rows - rows % size
        for start in range(0, whole, size):
            yield column_rows(pa, table.slice(start, size))
        held, rows = table.slice(whole).to_batches(), rows - whole
    if rows:
        yield column_rows(pa, pa.Table.from_batches(held, reader.schema))


def _reader(pa: Any, data: Any) -> Any:
    try:
        if hasattr(data, "__arrow_c_stream__"):
            return pa.RecordBatchReader.from_stream(data)
        batch = pa.record_batch(data)
        return pa.RecordBatchReader.from_batches(batch.schema, [batch])
    except (pa.ArrowException, TypeError, ValueError) as error:
        msg = f"data is an Arrow object without columns ({type(data).__name__}), not a table"
        raise InputError(msg, hint="pass a table, a data frame or a record batch", code="bad-parameter") from error


def _batches(pa: Any, reader: Any) -> Iterator[Any]:
    """Yield record batches; a stream that fails under way is an error of the input."""
    try:
        yield from reader
    except pa.ArrowException as error:
        msg = "the Arrow stream of data broke off"
        raise InputError(msg, hint="see what its source says", code="bad-parameter") from error


def column_rows(pa: Any, table: Any) -> ColumnRows:
    """Return a table as rows of Python values. The index of a pandas frame is left out, unless it has a name."""
    names = [name for name in table.column_names if not _PANDAS_INDEX.fullmatch(name)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"the table has two columns {twice!r}"
        raise InputError(msg, hint="rename one", code="bad-parameter")
    return ColumnRows({name: python_values(pa, table.column(name), name, table) for name in names}, table.num_rows)


def python_values(pa: Any, found: Any, name: str, table: Any = None) -> list[Any]:
    """Return a column as Python values, as the fields of models take them.

    Raises:
        InputError: values are too fine or too large for Python (nanoseconds, years beyond 9999).
    """
    mark = (table.schema.field(name).metadata or {}).get(MARK) if table is not None else None
    try:
        target = _held(pa, found.type)
        if target != found.type:
            found = found.cast(target)
        if pa.types.is_timestamp(target):
            return _instants(pa, found, target)
        values: list[Any] = found.to_pylist(maps_as_pydicts="strict")
    except (pa.ArrowException, ValueError, OverflowError, KeyError, NotImplementedError) as error:
        msg = f"the column {name!r} ({found.type}) holds values that Python has no exact form for"
        hint = "cast it first: times to microseconds, durations and intervals to numbers"
        raise InputError(msg, hint=hint, where={"field": name}, code="bad-parameter") from error
    if mark == b"json" or str(found.type) == "extension<arrow.json>":
        return _documents(values, name)
    if mark == b"decimal":
        from decimal import Decimal

        return [None if value is None else Decimal(value) for value in values]
    return values


def _instants(pa: Any, found: Any, target: Any) -> list[Any]:
    found = found.cast(pa.timestamp("us"))  # its UTC, ten times as fast as with the zone
    try:
        naive: list[Any] = found.to_numpy().tolist()  # where numpy is installed, ten times as fast again
    except ImportError:
        naive = found.to_pylist()
    if int in set(map(type, naive)):
        msg = "an instant outside the years 1 to 9999"
        raise ValueError(msg)
    return naive if target.tz is None else [None if value is None else value.replace(tzinfo=UTC) for value in naive]


def _documents(values: list[Any], name: str) -> list[Any]:
    from dataflow.files.texts import read_document

    try:
        return [None if value is None else read_document(value) for value in values]
    except t.ValueRefused as refused:
        raise InputError(f"{name}: {refused.message}", hint=refused.hint, code="bad-parameter") from None


def _held(pa: Any, kind: Any) -> Any:
    """Return the type that holds the same values in a form of which Python has the same: no nanoseconds, no codes."""
    types = pa.types
    if types.is_dictionary(kind):
        return _held(pa, kind.value_type)
    if types.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    if types.is_time(kind):
        return pa.time64("us")
    if types.is_date64(kind):
        return pa.date32()
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _held(pa, kind.value_type)
        return kind if inner == kind.value_type else pa.list_(inner)
    if types.is_struct(kind):
        inner = [pa.field(kind.field(i).name, _held(pa, kind.field(i).type)) for i in range(kind.num_fields)]
        changed = any(own.type != kind.field(i).type for i, own in enumerate(inner))
        return pa.struct(inner) if changed else kind
    return kind
