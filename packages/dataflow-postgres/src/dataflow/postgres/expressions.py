"""PostgreSQL's expressions for filters, changes and aggregates, with the meanings that every dialect shares.

Text is compared under ``COLLATE "C"``, which orders by code point. What must fail in the middle of an expression casts
a marked text to a number (see `dataflow.postgres.errors.ARITHMETIC`).
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.sql import ColumnElement

from dataflow import types as t
from dataflow.dialect import Bind, Convert, Dialect
from dataflow.jsontext import dump_json

_TEXTS = ("str", "enum")
AVERAGE_DIGITS = 28
QUOTIENT_DIGITS = 60
MOST_PLACES = 16_383
"""Significant digits of a Decimal average; the most a quotient may have to be exact; places that a Decimal has at most.
The same on every dialect."""


class Expressions(Dialect):
    """The expressions of the PostgreSQL dialect."""

    def comparable(self, column: ColumnElement[Any], field: t.FieldType) -> ColumnElement[Any]:
        if field.storage == "enum":
            return sa.collate(sa.cast(column, sa.Text), "C")
        return sa.collate(column, "C") if field.storage in _TEXTS else column

    def _typed(self, bound: ColumnElement[Any], field: t.FieldType) -> ColumnElement[Any]:
        return sa.cast(bound, _plain(self.column_type(field)))

    def in_list(
        self, column: ColumnElement[Any], field: t.FieldType, encode: Convert, bind: Bind, size: int
    ) -> ColumnElement[bool]:
        if isinstance(field, t.ArrayType):  # an array of arrays is one flat array

            def item(position: int) -> Convert:
                return lambda items: encode(items[min(position, len(items) - 1)])

            return column.in_([self._typed(bind(item(position)), field) for position in range(size)])
        array = sa.cast(bind(lambda items: [encode(item) for item in items]), pg.ARRAY(_plain(column.type)))
        return column == sa.func.any(array)

    # -- text -----------------------------------------------------------------------------------------------------
    def text_match(self, op: str, column: ColumnElement[Any], bind: Bind) -> ColumnElement[bool]:
        text = sa.collate(column, "C")
        if op == "$like":
            return text.op("LIKE", is_comparison=True)(_text(bind(_like)))
        if op == "$contains":
            return sa.func.strpos(text, _text(bind(None))) > _number(0)
        if op == "$startswith":
            return sa.func.starts_with(text, _text(bind(None)), type_=sa.Boolean())
        if op == "$endswith":
            return sa.func.right(text, sa.func.length(_text(bind(None)))) == _text(bind(None))
        from dataflow import regex

        patterns: dict[str, Convert] = {
            "$ilike": lambda s: regex.like_pattern(s).to_postgres(ignore_case=True),
            "$regex": regex.postgres_pattern,
            "$iregex": lambda s: regex.postgres_pattern(s, ignore_case=True),
        }
        return text.op("~", is_comparison=True)(_text(bind(patterns[op])))

    # -- lists ----------------------------------------------------------------------------------------------------
    def list_match(
        self, op: str, column: ColumnElement[Any], field: t.FieldType, encode: Convert, bind: Bind
    ) -> ColumnElement[bool]:
        store = self.encoder(field) or list
        if op == "$contains":
            array = bind(lambda item: store([encode(item)]))
            return column.op("@>", is_comparison=True)(self._typed(array, field))
        array = bind(lambda items: store([encode(item) for item in items]))
        return column.op("&&", is_comparison=True)(self._typed(array, field))

    def append(self, column: ColumnElement[Any], field: t.FieldType, encode: Convert, bind: Bind) -> ColumnElement[Any]:
        del encode
        if isinstance(field, t.ArrayType):
            return sa.func.array_append(column, self._typed(bind(self.encoder(field.item)), field.item))
        item = sa.func.jsonb_build_array(_json(bind(dump_json)))
        return sa.case(
            (column.is_(None), item),
            (_type_of(column) == sa.literal_column("'array'"), column.op("||")(item)),
            else_=sa.func.to_jsonb(_fail("not-a-list", column)),
        )

    # -- JSON -----------------------------------------------------------------------------------------------------
    def json_match(
        self, op: str, column: ColumnElement[Any], path: Sequence[str], kind: str, bind: Bind
    ) -> ColumnElement[bool]:
        member: ColumnElement[Any] = column
        for part in path:  # one by one: a path would reach into arrays by position
            member = member.op("->")(_text(sa.literal(part)))
        if op == "$exists":
            return member.is_not(None)
        if op == "$contains":
            return _json_contains(member, kind, bind)
        if op == "$overlap":
            mine = sa.case((_is(member, "array"), member), else_=sa.literal_column("'[]'::jsonb"))
            one = sa.func.jsonb_array_elements(mine).table_valued("value").render_derived(name="one")
            other = sa.func.jsonb_array_elements(_json(bind(dump_json))).table_valued("value")
            other = other.render_derived(name="other")
            return sa.exists(sa.select(1).select_from(one.join(other, one.c.value == other.c.value)))
        if kind == "null":
            return sa.or_(member.is_(None), member == sa.literal_column("'null'::jsonb"))
        if op == "$eq":
            return member == _json(bind(dump_json))
        if op == "$in":
            items = sa.func.jsonb_array_elements(_json(bind(dump_json)))
            return member.in_(sa.select(items))
        if op in ("$like", "$ilike", "$regex", "$iregex", "$startswith", "$endswith"):
            return sa.and_(_is(member, "string"), self.text_match(op, _as_text(member), bind))
        text = kind == "str"
        value = sa.collate(_as_text(member), "C") if text else member
        operand = _text(bind(None)) if text else _json(bind(dump_json))
        compare = {
            "$gt": value.__gt__, "$gte": value.__ge__, "$lt": value.__lt__, "$lte": value.__le__,
        }[op]  # fmt: skip
        return sa.and_(_is(member, "string" if text else "number"), compare(operand))

    # -- changes --------------------------------------------------------------------------------------------------
    def arithmetic(
        self, op: str, column: ColumnElement[Any], field: t.FieldType, operand: type, bind: Bind
    ) -> ColumnElement[Any]:
        if op in ("$min", "$max"):
            ordered, parameter = self.comparable(column, field), self._typed(bind(None), field)
            keep = ordered <= parameter if op == "$min" else ordered >= parameter
            return sa.case((keep, column), else_=self._typed(bind(None), field))
        sign = {"$inc": "+", "$dec": "-", "$multiply": "*", "$divide": "/"}[op]
        if field.storage == "float":  # adding 0.0 makes -0.0 positive
            return column.op(sign)(self._typed(bind(None), field)).op("+")(_number("0.0::float8"))
        if field.storage == "int" and operand is int and sign != "/":
            return column.op(sign)(self._typed(bind(None), field))

        def number() -> ColumnElement[Any]:
            return sa.cast(bind(_decimal), sa.Numeric)

        exact: ColumnElement[Any] = sa.cast(column, sa.Numeric)
        found: ColumnElement[Any]
        if field.storage == "decimal":
            if sign == "/":
                return _quotient(exact, number)
            found = sa.func.trim_scale(exact.op(sign)(number()))
            if sign != "*":
                return found
            shown = sa.func.scale(exact) + sa.func.scale(number()) <= _number(MOST_PLACES)  # else it would be rounded
            fails = sa.cast(_fail("not-exact", column), sa.Numeric)
            return sa.case((sa.or_(column.is_(None), shown), found), else_=fails)
        if sign == "/":
            whole, found = sa.func.mod(exact, number()) == _number(0), sa.func.div(exact, number())
        else:
            found = exact.op(sign)(number())
            whole = found == sa.func.trunc(found)
        result = sa.cast(found, sa.BigInteger)
        return sa.case((column.is_(None), sa.null()), (whole, result), else_=_fail("not-whole", column))

    # -- aggregates -----------------------------------------------------------------------------------------------
    def aggregate(self, op: str, column: ColumnElement[Any] | None, field: t.FieldType | None) -> ColumnElement[Any]:
        if column is None or field is None:
            return sa.type_coerce(sa.func.count(), sa.BigInteger)
        if op == "$count":
            return sa.type_coerce(sa.func.count(column), sa.BigInteger)
        if op == "$count_distinct":
            return sa.type_coerce(sa.func.count(column.distinct()), sa.BigInteger)
        if op == "$sum" and field.storage == "int":
            total = sa.func.coalesce(sa.func.sum(column), _number(0))
            fits = total.between(_number(t.INT_MIN), _number(t.INT_MAX))
            return sa.case((fits, sa.cast(total, sa.BigInteger)), else_=_fail("sum-too-large", total))
        if op == "$sum":
            return sa.cast(sa.func.coalesce(sa.func.sum(column), _number(0)), _plain(self.column_type(field)))
        if op == "$avg":
            return _average(column, field.storage)
        function = sa.func.min if op == "$min" else sa.func.max
        if field.storage == "bytes":  # of bytea and uuid, only new servers know the least
            return sa.func.decode(function(sa.collate(sa.func.encode(column, "hex"), "C")), "hex")
        if field.storage == "uuid":
            return sa.cast(function(sa.collate(sa.cast(column, sa.Text), "C")), sa.Uuid)
        return function(self.comparable(column, field))

    def created(self, table: sa.Table) -> ColumnElement[Any] | None:
        """A row that an upsert changed was locked first, which leaves the transaction's number in xmax."""
        return sa.literal_column(f"({self.quote(table.name)}.xmax = 0)", sa.Boolean())


def _number(text: int | str) -> ColumnElement[Any]:
    return sa.literal_column(str(text))


def _plain(kind: Any) -> Any:
    """Leave the collation out of a type: casts name types only."""
    if isinstance(kind, pg.ENUM):
        return kind
    return (
        sa.Text()
        if isinstance(kind, sa.Text)
        else pg.ARRAY(_plain(kind.item_type))
        if isinstance(kind, pg.ARRAY)
        else kind
    )


def _text(bound: ColumnElement[Any]) -> ColumnElement[Any]:
    return sa.cast(bound, sa.Text)


def _json(bound: ColumnElement[Any]) -> ColumnElement[Any]:
    return sa.cast(bound, pg.JSONB)


def _as_text(member: ColumnElement[Any]) -> ColumnElement[Any]:
    """The characters of a JSON string."""
    return member.op("#>>", return_type=sa.Text())(sa.literal_column("'{}'::text[]"))


def _type_of(member: ColumnElement[Any]) -> ColumnElement[Any]:
    return sa.func.jsonb_typeof(member)


def _is(member: ColumnElement[Any], kind: str) -> ColumnElement[bool]:
    return _type_of(member) == sa.literal_column(f"'{kind}'")


def _json_contains(member: ColumnElement[Any], kind: str, bind: Bind) -> ColumnElement[bool]:
    """As ``@>``, but an element of a list may be an object as well; texts contain their substrings."""
    wanted = _json(bind(dump_json))
    element = sa.and_(_is(member, "array"), sa.not_(_is(wanted, "array")))
    contains = member.op("@>", is_comparison=True)
    cases: list[tuple[ColumnElement[bool], ColumnElement[Any]]] = [
        (element, contains(sa.func.jsonb_build_array(wanted)))
    ]
    if kind == "str":
        found = sa.func.strpos(sa.collate(_as_text(member), "C"), _text(bind(None))) > _number(0)
        cases.insert(0, (_is(member, "string"), found))
    return sa.case(*cases, else_=contains(wanted))


def _like(pattern: str) -> str:
    """Check a LIKE pattern (% _ and backslash); PostgreSQL's own LIKE reads it the same way."""
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        msg = "the pattern ends in a backslash"
        raise t.ValueRefused(msg, "double it, or put the character it escapes")
    return pattern


def _decimal(value: Any) -> Decimal:
    """Turn a number into the Decimal that its text shows."""
    return value if isinstance(value, Decimal) else Decimal(repr(value))


def _fail(fault: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """An expression that fails when it is computed, not when the statement is planned: it depends on the row."""
    nothing = sa.func.left(sa.cast(column, sa.Text), _number(0))
    return sa.cast(sa.literal_column(f"'dataflow:{fault}'").op("||")(nothing), sa.BigInteger)


def _digits(number: ColumnElement[Any]) -> ColumnElement[Any]:
    """Count significant digits."""
    text = sa.func.replace(sa.cast(sa.func.abs(number), sa.Text), sa.literal_column("'.'"), sa.literal_column("''"))
    return sa.func.length(sa.func.btrim(text, sa.literal_column("'0'")))


def _quotient(dividend: ColumnElement[Any], divisor: Any) -> ColumnElement[Any]:
    """Divide exactly, or fail: the quotient is computed with more digits than it may have, and multiplied back."""
    room = sa.func.length(sa.cast(sa.func.trunc(sa.func.abs(divisor())), sa.Text))
    scale = sa.func.scale(dividend) + sa.func.scale(divisor()) + room + _number(QUOTIENT_DIGITS)
    found = sa.func.trim_scale(sa.func.round(dividend, scale).op("/")(divisor()))
    exact = sa.and_(found * divisor() == dividend, _digits(found) <= _number(QUOTIENT_DIGITS))
    return sa.case(
        (dividend.is_(None), sa.null()),
        (sa.or_(dividend == _number(0), divisor() == _number(0)), dividend.op("/")(divisor())),
        (exact, found),
        else_=sa.cast(_fail("not-exact", dividend), sa.Numeric),
    )


def _average(column: ColumnElement[Any], storage: str) -> ColumnElement[Any]:
    total, number = sa.func.sum(column), sa.func.count(column)
    if storage == "int":  # avg() has 16 digits, a float 17: take enough for the float next to the true average
        return sa.cast(sa.func.round(total, _number(60)).op("/")(sa.func.nullif(number, _number(0))), sa.Double)
    if storage == "float":  # avg() also computes squares, which overflow; a quotient too small for a float is 0
        count = sa.cast(number, sa.Double)
        least = _number("'5e-324'::float8")
        size = sa.func.abs(total)
        tiny = size * _number(2) <= count * least  # asked only where neither side can leave the range
        cases = (number == _number(0), sa.null()), (size >= _number(1), total / count), (tiny, _number("0.0::float8"))
        return sa.case(*cases, else_=total / count)
    found = sa.func.round(total, sa.func.scale(total) + _number(48)).op("/")(sa.func.nullif(number, _number(0)))
    size = sa.func.abs(found)
    before = sa.func.length(sa.cast(sa.func.trunc(size), sa.Text))
    fraction = sa.func.split_part(sa.cast(size, sa.Text), sa.literal_column("'.'"), _number(2))
    zeros = sa.func.length(fraction) - sa.func.length(sa.func.ltrim(fraction, sa.literal_column("'0'")))
    places = _number(AVERAGE_DIGITS) - sa.case((size >= _number(1), before), else_=-zeros)
    return sa.func.trim_scale(sa.func.round(found, places))
