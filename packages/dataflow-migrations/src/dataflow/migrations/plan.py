"""A plan: the steps of one migration, frozen, with what each does and how risky it is; JSON is its durable form."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Self

import attrs

from dataflow.changes import Step
from dataflow.migrations.risk import RiskLevel, level_of


@attrs.frozen(repr=False)
class PlannedStep:
    """A step of a plan, with its risk level.

    Attributes:
        step: what is done.
        risk: its level.
    """

    step: Step
    risk: RiskLevel

    def __str__(self) -> str:
        return f"{self.risk}: {self.step.summary}"

    def __repr__(self) -> str:
        return f"<{self}>"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data: the fields of `dataflow.changes.Step`, and ``risk``."""
        return {**attrs.asdict(self.step), "risk": self.risk.value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` has written."""
        fields = {field.name: data[field.name] for field in attrs.fields(Step)}
        fields["sql"] = tuple(fields["sql"])
        fields["inverse"] = None if fields["inverse"] is None else tuple(fields["inverse"])
        return cls(Step(**fields), RiskLevel(data["risk"]))


def undoing(step: Step) -> Step:
    """Return the step that undoes one: outside a transaction where that one is, else in one."""
    outside = step.mode == "outside"
    return Step(
        f"undo_{step.operation}",
        f"undo: {step.summary}",
        step.table,
        step.inverse or (),
        mode="outside" if outside else "together",
        locks=step.locks,
        data_loss="possible",
        details={name: value for name, value in step.details.items() if outside or name == "clears"},
    )


@attrs.frozen
class Question:
    """Something only the user knows: whether a column was renamed, or what existing rows get in a new one.

    Attributes:
        kind: "rename" or "value".
        table: the table.
        column: the new column; "" where it is about the table.
        candidates: for a rename, the columns that it may have been.
        hint: what to write where.
    """

    kind: str
    table: str
    column: str
    candidates: tuple[str, ...] = ()
    hint: str = ""

    @property
    def name(self) -> str:
        """Of what it is about: "table.column", or "table"."""
        return f"{self.table}.{self.column}" if self.column else self.table

    def __str__(self) -> str:
        if self.kind == "rename":
            return f"was {self.name} called {' or '.join(self.candidates)} before? {self.hint}"
        return f"what do existing rows of {self.table} get as {self.column}? {self.hint}"


@attrs.frozen
class Plan:
    """The steps that lead from the schema as it is to the one that the models describe.

    Attributes:
        dialect: name of the dialect.
        found: fingerprint of the schema that it starts from (`Catalog.fingerprint`).
        steps: in the order in which they are made.
        notes: what was left alone, and why.
        questions: what has to be answered before the plan can be carried out.
    """

    dialect: str
    found: str
    steps: tuple[PlannedStep, ...]
    notes: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)

    @property
    def id(self) -> str:
        """A hash of what the plan does and of what it starts from: equal ids mean equal plans."""
        counted = {"dialect": self.dialect, "found": self.found, "steps": [step.to_dict() for step in self.steps]}
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def risk(self) -> RiskLevel:
        """The highest level of its steps."""
        return max((step.risk for step in self.steps), key=lambda level: level.rank, default=RiskLevel.LOW)

    @property
    def loses_data(self) -> bool:
        """Whether a step is certain to lose data."""
        return any(planned.step.data_loss == "certain" for planned in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data, with its id."""
        return {
            "format": 1,
            "id": self.id,
            "dialect": self.dialect,
            "found": self.found,
            "risk": self.risk.value,
            "steps": [step.to_dict() for step in self.steps],
            "notes": list(self.notes),
            "questions": [attrs.asdict(question) for question in self.questions],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` has written."""
        questions = (Question(**{**each, "candidates": tuple(each["candidates"])}) for each in data["questions"])
        return cls(
            data["dialect"],
            data["found"],
            tuple(PlannedStep.from_dict(step) for step in data["steps"]),
            tuple(data["notes"]),
            tuple(questions),
        )

    def inverse(self, done: Collection[int]) -> "Plan | None":
        """Return the plan that undoes the steps at these positions; None where one of them has no inverse."""
        made = [planned for position, planned in enumerate(self.steps) if position in done]
        if any(planned.step.inverse is None for planned in made):
            return None
        back = [undoing(planned.step) for planned in reversed(made) if planned.step.inverse]
        return attrs.evolve(self, steps=tuple(PlannedStep(step, level_of(step)) for step in back), questions=())
