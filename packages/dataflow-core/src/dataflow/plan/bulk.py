"""What bulk create and bulk upsert share: reading rows, compiling the INSERT, batches, transactions, the result.

One call is one transaction unless `commit_every` says otherwise.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any

import attrs

from dataflow.dialect import Insert, Program
from dataflow.errors import InputError, IntegrityError, Problem
from dataflow.plan import changes as ch
from dataflow.plan import rows as rw
from dataflow.plan.builder import PlanBuilder, kept_problem
from dataflow.plan.bulk_plan import BulkPlan
from dataflow.plan.operation import ModelOperation, Result
from dataflow.session import Call, atomic

_GROUP = re.compile(r"""\((?:[^()"]|"[^"]*"|\([^()]*\))*\)""")
"""A parenthesis of parameters, which may be cast to types such as "a type" or numeric(10, 2)."""


class BulkWriting(ModelOperation):
    """What bulk create and bulk upsert share: rows, batches, commits."""

    def check(self, params: Mapping[str, Any], *, partial: bool) -> list[Problem]:
        problems = super().check(params, partial=partial)
        for name, target in self.route.items():
            if target != "data" or name not in params or rw.is_arrow(params[name]):  # a table may be read only once
                continue
            if not isinstance(complaint := rw.as_rows(params[name]), str):
                problems += rw.unknown_names(self.bound, complaint, rw.given_names(complaint))
        return problems

    def choice(self, options: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
        """Read an option that is one of a few words."""
        value = options.get(name, choices[0])
        if value not in choices:
            raise self.fault(f"{name} is one of {', '.join(choices)}; got something else")
        return str(value)

    def data(self, options: Mapping[str, Any]) -> Any:
        """Read `data`, whatever it is."""
        if "data" not in options:
            hint = "give data=[{…}, …]"
            if "data" in self.bound.fields:
                hint = "this model has a field 'data', so pass the rows as _data=[{…}, …]"
            raise self.fault(f"{self.name} needs rows", hint, "missing-data")
        return options["data"]

    def rows(self, data: Any, first: int = 0) -> Sequence[Mapping[str, Any]]:
        """Read rows, refusing unknown keys; `first`: the place of the first in the whole input."""
        rows = rw.as_rows(data, first)
        if isinstance(rows, str):
            raise self.fault(rows, rw.HINT)
        given = rw.given_names(rows)
        problems = rw.unknown_names(self.bound, rows, given, first) or self.kept_names(rows, given, first)
        if problems:
            raise self.bound.refuse(problems, self.name)
        asked = {name for name in given if name in self.filled and not self.bound.fields[name].nullable}
        if asked:  # None asks the database for its value
            rows = [
                {name: value for name, value in row.items() if value is not None or name not in asked} for row in rows
            ]
        return rows

    @cached_property
    def filled(self) -> frozenset[str]:
        """Fields that the database fills where no value is given, but for ids that it counts."""
        fields = self.bound.fields.items()
        return frozenset(name for name, field in fields if field.spec.generated and name != self.bound.spec.counter)

    def kept_names(self, rows: Sequence[Mapping[str, Any]], given: set[str], first: int) -> list[Problem]:
        """Return a problem for each field that rows give and callers do not write, naming the first such row."""
        problems = []
        for name in sorted(given & self.bound.fields.keys() - set(self.row_options)):
            spec = self.bound.fields[name].spec
            index = next((i for i, row in enumerate(rows, first) if row.get(name) is not None), None)
            if spec.kept and index is not None:
                problem = kept_problem(spec)
                where: dict[str, str | int] = {"row": index, "field": name}
                problems.append(attrs.evolve(problem, message=f"row {index}: {problem.message}", where=where))
        return problems

    @property
    def row_options(self) -> tuple[str, ...]:
        """Options that rows may bring as the fields of the same name: what they name has to be what is set."""
        return tuple(self.value_options)

    def batch(self, options: Mapping[str, Any]) -> "Batch":
        """Read the rows per statement."""
        asked = self.whole(options, "batch_size", minimum=1)
        return Batch(asked or int(self.bound.core.config["bulk_batch_size"]), asked is not None)

    def columns(self, given: AbstractSet[str]) -> tuple[str, ...]:
        """Return the columns to write: the given ones and those with a default."""
        columns = tuple(
            name
            for name, field in self.bound.fields.items()
            if name in given or not (field.spec.generated or (field.nullable and ch.default_of(field.spec) is None))
        )
        if columns:
            return columns
        empty = [name for name, field in self.bound.fields.items() if field.nullable and not field.spec.generated]
        own = self.bound.spec.counter
        return tuple(empty or ([own] if own else self.bound.fields))[-1:]  # an INSERT of rows needs one; it gets None

    def plan(
        self,
        builder: PlanBuilder,
        statement: Any,
        columns: tuple[str, ...],
        batch: "Batch",
        keys: tuple[str, ...],
        *,
        told: Any = None,
    ) -> BulkPlan:
        """Compile an INSERT for one row, and cut its text where rows repeat.

        Args:
            builder: with the features' wishes.
            statement: the INSERT, its values bound in the order of `columns`.
            columns: names to write.
            batch: rows per statement.
            keys: columns to return; all where a feature wants to see the records.
            told: an expression to return after them: whether the row was created.
        """
        returned = tuple(self.bound.fields) if builder.remembers else keys
        listed = [*builder.returned(returned), *([] if told is None else [told])]
        if listed:
            statement = statement.returning(*listed)
        compiled = statement.compile(dialect=self.bound.core.dialect.sqlalchemy)
        head, group, tail = self._cut(str(compiled), columns)
        insert = Insert(
            self.bound.spec.table,
            head,
            group,
            tail,
            columns,
            tuple(builder.table.c[name].type for name in columns),
            returning=len(listed),
            batch_size=batch.size,
            capped=batch.asked,
            generated=self.bound.spec.counter,
        )
        return BulkPlan(
            insert,
            returned,
            self.bound.decoder(returned, builder.decodes),
            builder.forced(),
            builder.encodes,
            tuple(builder.guards),
            tuple(builder.unmatched),
            tuple(builder.records),
            tuple(builder.notifications),
            tuple(builder.source(name, compiled) for name in compiled.positiontup[len(columns) :]),
            told is not None,
            self._is_bare(returned, builder),
            tuple(builder.authorizations),
            builder.written,
            dict(builder.derivations),
        )

    def _is_bare(self, returned: Sequence[str], builder: PlanBuilder) -> bool:
        return (
            len(returned) == 1
            and returned == self.bound.spec.primary_key
            and self.bound.fields[returned[0]].decode is None
            and returned[0] not in builder.decodes
        )

    def _cut(self, sql: str, columns: Sequence[str]) -> tuple[str, str, str]:
        """Cut an INSERT of one row into what stands before its values, their parenthesis, and what follows.

        Every identifier is quoted, so the text before the values is known whatever the names hold.
        """
        dialect = self.bound.core.dialect
        table, names = dialect.table_name(self.bound.spec.table), ", ".join(map(dialect.quote, columns))
        head = f"INSERT INTO {table} ({names}) VALUES "  # noqa: S608
        found = _GROUP.match(sql, len(head))
        if not sql.startswith(head) or found is None:
            raise self.fault("the rows cannot be written together", "please report this model", "insert-contract")
        return head, found[0], sql[found.end() :]

    def encoder(self, plan: BulkPlan, shared: Mapping[str, Any], call: Call, given: AbstractSet[str]) -> rw.RowEncoder:
        """Return the encoder of rows for a plan; `given`: every name that stands in any of the rows."""
        return rw.RowEncoder(
            self.bound,
            plan.insert.columns,
            shared,
            call,
            forced=plan.forced,
            encodes=plan.encodes,
            given=given,
            derived=plan.derivations,
        )

    def groups(self, rows: Sequence[Any], size: int | None) -> Iterator[tuple[int, Sequence[Any]]]:
        """Cut rows into (index of the first, rows) of at most `size`."""
        step = size or max(len(rows), 1)
        for start in range(0, len(rows), step):
            yield start, rows[start : start + step]

    def in_transactions(
        self, call: Call, bodies: Iterator[Program[None]], tally: "Tally", every: int | None
    ) -> Program[None]:
        """Run bodies each in its transaction (`every`), or all in one."""
        if every and call.session.depth:
            raise self.fault(
                "commit_every cannot commit inside a transaction scope", "leave it out, or leave the scope"
            )
        if not every:
            yield from atomic(call, _all(bodies))
            return
        for body in bodies:
            try:
                yield from atomic(call, body)
            except (InputError, IntegrityError) as error:
                error.message += f" (commit_every={every}: {tally.committed} rows were committed before)"
                error.where["committed"] = tally.committed
                raise
            tally.committed = tally.done


@attrs.frozen
class Batch:
    """How many rows a statement takes, and whether the caller said so."""

    size: int
    asked: bool


def _all(bodies: Iterator[Program[None]]) -> Program[None]:
    for body in bodies:
        yield from body


@attrs.define
class Tally:
    """What a bulk call has done so far."""

    created: int = 0
    updated: int = 0
    skipped: int = 0
    done: int = 0
    committed: int = 0
    ids: list[Any] = attrs.field(factory=list)
    errors: list[dict[str, Any]] = attrs.field(factory=list)

    def result(self, total: int, *, ids: bool, collect: bool, every: int | None) -> Result:
        """Return the node's result."""
        out: dict[str, Any] = {
            "created": self.created,
            "updated": self.updated,
            "skipped": self.skipped,
            "total": total,
        }
        if ids:
            out["ids"] = self.ids
        if collect:
            out["errors"] = self.errors
        if every:
            out["committed"] = self.committed
        return Result(out)
