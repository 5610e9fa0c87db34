"""DuckDB's expressions for filters, changes and aggregates, with the meanings that every dialect shares.

What must fail in the middle of an expression calls DuckDB's ``error()`` with a marked text (`dataflow_duckdb.errors`).
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import ColumnElement

from dataflow import exact, regex
from dataflow import types as t
from dataflow.dialect import Bind, Convert, Dialect
from dataflow.jsontext import dump_json
from dataflow_duckdb.compiler import Named
from dataflow_duckdb.functions import MARK

TEXT, WHOLE = sa.Text(), sa.BigInteger()
DOUBLE: sa.Double[float] = sa.Double()
_TEXT_OPERATORS = ("$like", "$ilike", "$regex", "$iregex", "$startswith", "$endswith")


class DecimalKey(Named):
    """The type of a Decimal's sort key: what it is compared with becomes a key as well."""

    def bind_expression(self, bindvalue: sa.BindParameter[Any]) -> ColumnElement[Any]:
        """Turn a bound Decimal into its key."""
        return sa.func.df_decimal_key(bindvalue)


KEY = DecimalKey("VARCHAR")


class Expressions(Dialect):
    """The expressions of the DuckDB dialect."""

    def type_text(self, kind: sa.types.TypeEngine[Any]) -> str:
        """Write a type as in a cast."""
        return kind.compile(dialect=self.sqlalchemy)

    def _typed(self, bound: ColumnElement[Any], field: t.FieldType) -> ColumnElement[Any]:
        return sa.cast(bound, self.column_type(field))

    def _list(self, bound: ColumnElement[Any], kind: sa.types.TypeEngine[Any]) -> ColumnElement[Any]:
        return sa.cast(bound, Named(f"{self.type_text(kind)}[]"))

    def comparable(self, column: ColumnElement[Any], field: t.FieldType) -> ColumnElement[Any]:
        return sa.func.df_decimal_key(column, type_=KEY) if field.storage == "decimal" else column

    def in_list(
        self, column: ColumnElement[Any], field: t.FieldType, encode: Convert, bind: Bind, size: int
    ) -> ColumnElement[bool]:
        del size  # one parameter, whatever the length
        items = self._list(bind(lambda items: [encode(item) for item in items]), self.column_type(field))
        return column.in_(sa.select(sa.func.unnest(items)))

    # -- text and lists -------------------------------------------------------------------------------------------
    def text_match(self, op: str, column: ColumnElement[Any], bind: Bind) -> ColumnElement[bool]:
        if op == "$like":
            return _true(sa.func.like_escape(column, sa.cast(bind(None), TEXT), sa.literal_column("'\\'")))
        plain = {"$contains": sa.func.contains, "$startswith": sa.func.starts_with, "$endswith": sa.func.suffix}
        if op in plain:
            return _true(plain[op](column, sa.cast(bind(None), TEXT)))
        patterns: dict[str, Convert] = {
            "$ilike": lambda s: regex.like_pattern(s).to_python(ignore_case=True),
            "$regex": regex.python_pattern,
            "$iregex": lambda s: regex.python_pattern(s, ignore_case=True),
        }
        return _true(sa.func.df_matches(bind(patterns[op]), column))

    def list_match(
        self, op: str, column: ColumnElement[Any], field: t.FieldType, encode: Convert, bind: Bind
    ) -> ColumnElement[bool]:
        assert isinstance(field, t.ArrayType)
        store = self.encoder(field.item) or _same
        if op == "$contains":
            return _true(sa.func.list_contains(column, self._typed(bind(lambda v: store(encode(v))), field.item)))
        items = bind(lambda values: [store(encode(value)) for value in values])
        return _true(sa.func.list_has_any(column, self._typed(items, field)))

    def append(self, column: ColumnElement[Any], field: t.FieldType, encode: Convert, bind: Bind) -> ColumnElement[Any]:
        del encode
        if not isinstance(field, t.ArrayType):
            return sa.func.df_json_append(column, bind(dump_json))
        empty = self._typed(sa.literal_column("[]"), field)
        return sa.func.list_append(
            sa.func.coalesce(column, empty), self._typed(bind(self.encoder(field.item)), field.item)
        )

    # -- JSON -----------------------------------------------------------------------------------------------------
    def json_match(
        self, op: str, column: ColumnElement[Any], path: Sequence[str], kind: str, bind: Bind
    ) -> ColumnElement[bool]:
        member: ColumnElement[Any] = sa.cast(column, TEXT)
        if path:
            member = sa.func.df_json_member(member, _text(dump_json(list(path))))
        text = sa.func.df_json_text(member, type_=TEXT)
        if op == "$exists":
            return member.is_not(None)
        if op == "$contains":
            found = _true(sa.func.df_json_contains(member, bind(dump_json)))
            return (
                sa.case((text.is_not(None), self.text_match(op, text, bind)), else_=found) if kind == "str" else found
            )
        if kind == "null":
            return sa.or_(member.is_(None), member == sa.literal_column("'null'"))
        if op in _TEXT_OPERATORS:
            return self.text_match(op, text, bind)
        named = {"$eq": sa.func.df_json_equal, "$in": sa.func.df_json_in, "$overlap": sa.func.df_json_overlap}
        if op in named:
            return _true(named[op](member, bind(dump_json)))
        if kind == "str":
            return _compared(op, text, sa.cast(bind(None), TEXT))
        order = sa.func.df_json_order(member, bind(dump_json), type_=WHOLE)
        return _compared(op, order, sa.literal_column("0"))

    # -- changes --------------------------------------------------------------------------------------------------
    def arithmetic(
        self, op: str, column: ColumnElement[Any], field: t.FieldType, operand: type, bind: Bind
    ) -> ColumnElement[Any]:
        if op in ("$min", "$max"):
            one, other = (self.comparable(each, field) for each in (column, self._typed(bind(None), field)))
            keep = one <= other if op == "$min" else one >= other
            return sa.case((keep, column), else_=self._typed(bind(None), field))
        sign = {"$inc": "+", "$dec": "-", "$multiply": "*", "$divide": "/"}[op]
        if field.storage == "float":
            return self._float(sign, column, lambda: self._typed(bind(None), field))
        if field.storage == "int" and operand is int and sign != "/":
            return column.op(sign)(self._typed(bind(None), field))
        kind = "int" if field.storage == "int" else "decimal"
        found = sa.func.df_arithmetic(_text(sign), sa.cast(column, TEXT), bind(_number), _text(kind))
        return sa.cast(found, WHOLE) if kind == "int" else found

    @staticmethod
    def _float(sign: str, column: ColumnElement[Any], bound: Callable[[], ColumnElement[Any]]) -> ColumnElement[Any]:
        """Compute; a result that is 0 only because floats end is an error, and so is an infinity (a check sees it)."""
        zero: ColumnElement[Any] = sa.literal_column("0.0::DOUBLE")
        found = column.op(sign)(bound()).op("+")(zero)  # which makes -0.0 positive
        if sign in "+-":
            return found
        both = column != zero if sign == "/" else sa.and_(column != zero, bound() != zero)
        return sa.case(
            (sa.and_(found == zero, both), sa.cast(_fail("the result is too small for a float"), DOUBLE)), else_=found
        )

    # -- aggregates -----------------------------------------------------------------------------------------------
    def aggregate(self, op: str, column: ColumnElement[Any] | None, field: t.FieldType | None) -> ColumnElement[Any]:
        if column is None or field is None:
            return sa.func.count()
        if op == "$count":
            return sa.func.count(column)
        if op == "$count_distinct":
            value = sa.func.df_json_value(sa.cast(column, TEXT)) if field.storage == "json" else column
            return sa.func.count(value.distinct())
        if op in ("$sum", "$avg"):
            return _total(op, column, field.storage)
        if field.storage == "decimal":
            chosen = sa.func.min_by if op == "$min" else sa.func.max_by
            return chosen(column, sa.func.df_decimal_key(column))
        return sa.func.min(column) if op == "$min" else sa.func.max(column)


def _total(op: str, column: ColumnElement[Any], storage: str) -> ColumnElement[Any]:
    """Sum or average. DuckDB adds integers in 128 bits."""
    if storage == "decimal":
        texts = sa.func.string_agg(column, _text(" "))
        return (
            sa.func.coalesce(sa.func.df_decimal_sum(texts), _text("0"))
            if op == "$sum"
            else sa.func.df_decimal_avg(texts)
        )
    total: ColumnElement[Any] = sa.func.sum(column)
    if storage == "int" and op == "$sum":
        total = sa.func.coalesce(total, sa.literal_column("0"))
        fits = total.between(sa.literal_column(str(t.INT_MIN)), sa.literal_column(str(t.INT_MAX)))
        return sa.case((fits, sa.cast(total, WHOLE)), else_=sa.cast(_fail("the sum does not fit in 64 bits"), WHOLE))
    if storage == "int":
        return sa.cast(total, DOUBLE) / sa.func.count(column)
    found: ColumnElement[Any] = sa.func.avg(column)
    if op == "$sum":
        found = sa.func.coalesce(total, sa.literal_column("0.0::DOUBLE"))
    finite = sa.or_(found.is_(None), sa.func.isfinite(found, type_=sa.Boolean()))
    return sa.case((finite, found), else_=sa.cast(_fail("the result is too large for a float"), DOUBLE))


def _same(value: Any) -> Any:
    return value


def _text(text: str) -> ColumnElement[Any]:
    """Write a text of our own, or a name of the user's, as a constant."""
    return sa.literal_column("'" + text.replace("'", "''") + "'")


def _true(function: Any) -> ColumnElement[bool]:
    return sa.type_coerce(function, sa.Boolean())


def _fail(message: str) -> ColumnElement[Any]:
    return sa.func.error(_text(MARK + message))


def _compared(op: str, one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[bool]:
    found: ColumnElement[bool] = {"$gt": one.__gt__, "$gte": one.__ge__, "$lt": one.__lt__, "$lte": one.__le__}[op](
        other
    )
    return found


def _number(value: Any) -> str:
    """Write an operand as `dataflow.exact.arithmetic` takes it as text."""
    if isinstance(value, str):  # a Decimal, encoded
        return value
    return exact.decimal_text(value if isinstance(value, Decimal) else Decimal(repr(value)))
