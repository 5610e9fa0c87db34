"""How models reach each other: by a field ``customer_id``, or as `Relation` and `ForeignKey` annotations say."""

from collections.abc import Mapping

from dataflow import naming
from dataflow.errors import ModelError
from dataflow.fields import ForeignKey, Relation
from dataflow.plan.bound import BoundModel, BoundRelation


class Relations:
    """Connects the models of one instance, whatever order they are registered in.

    Args:
        models: name -> model, as it grows.
    """

    def __init__(self, models: Mapping[str, BoundModel]) -> None:
        self.models = models
        self._called: dict[str, str] = {}
        self._waiting: dict[str, list[tuple[str, str, Relation]]] = {}
        self._made: list[tuple[BoundModel, str]] = []

    def add(self, bound: BoundModel) -> None:
        """Connect a new model with those that are there, in both directions.

        Raises:
            ModelError: a relation cannot be made; then none is.
        """
        self._made = []
        folded = _folded(bound.name)
        first = self._called.setdefault(folded, bound.name) == bound.name
        waited = self._waiting.pop(folded, [])
        try:
            self._add(bound, waited, folded)
        except ModelError:
            for model, relation in self._made:
                del model.relations[relation]
            for entries in self._waiting.values():
                entries[:] = [entry for entry in entries if entry[0] != bound.name]
            if waited:
                self._waiting[folded] = waited
            if first:
                del self._called[folded]
            raise

    def _add(self, bound: BoundModel, waited: list[tuple[str, str, Relation]], folded: str) -> None:
        for name, field in bound.spec.fields.items():
            declared = field.relation
            if declared is None and name.endswith("_id") and field.origin == "user":
                declared = Relation(name.removesuffix("_id"))
                if bound.spec.primary_key == (name,) and _folded(declared.model) == folded:
                    continue  # Customer.customer_id is its own key, and refers to nothing
            if declared is None:
                continue
            target = self._called.get(_folded(declared.model))
            if target is None:
                self._waiting.setdefault(_folded(declared.model), []).append((bound.name, name, declared))
            else:
                self._connect(bound, name, declared, self.models[target])
        for source, name, declared in waited:
            if source in self.models:
                self._connect(self.models[source], name, declared, bound)

    def _connect(self, source: BoundModel, field: str, declared: Relation, target: BoundModel) -> None:
        implicit = source.spec.fields[field].relation is None
        remote = declared.to or (target.spec.primary_key[0] if len(target.spec.primary_key) == 1 else None)
        if remote is None or remote not in target.fields:
            if implicit:
                return
            msg = f"{source.name}.{field} relates to {target.name}, which has no single field {remote or 'as key'}"
            raise ModelError(
                msg,
                hint=f"name one field: {type(declared).__name__}({target.name!r}, to='…')",
                where=_place(source, field=field),
            )
        if isinstance(declared, ForeignKey) and (remote,) not in target.spec.unique_keys:
            msg = f"{source.name}.{field} refers to {target.name}.{remote}, which is not a unique key"
            hint = f"give {target.name} a unique index on {remote!r}, or annotate Relation instead of ForeignKey"
            raise ModelError(msg, hint=hint, where=_place(source, field=field), code="bad-relation")
        if isinstance(declared, ForeignKey) and target.spec.ends and (remote,) != target.spec.primary_key:
            msg = f"{source.name}.{field} refers to {target.name}.{remote}, which deleted records may share"
            hint = f"refer to the primary key of {target.name}, or annotate Relation instead of ForeignKey"
            raise ModelError(msg, hint=hint, where=_place(source, field=field), code="bad-relation")
        if source.fields[field].type != target.fields[remote].type:
            if implicit:
                return
            here, there = source.fields[field].type, target.fields[remote].type
            msg = f"{source.name}.{field} is {here}, and {target.name}.{remote} is {there}"
            raise ModelError(msg, hint="give both fields one type", where=_place(source, field=field))
        name = declared.name or (field.removesuffix("_id") if field.endswith("_id") else None)
        if name is None:
            msg = f"the relation of {source.name}.{field} needs a name"
            hint = f"write {type(declared).__name__}({target.name!r}, name='…')"
            raise ModelError(msg, hint=hint, where=_place(source, field=field))
        self._add_relation(
            source,
            BoundRelation(name, target.name, many=False, local=field, remote=remote),
            declared,
            implicit=implicit,
        )
        reverse = declared.reverse or naming.plural(naming.snake(source.name))
        back = BoundRelation(reverse, source.name, many=True, local=remote, remote=field)
        self._add_relation(target, back, declared, implicit=implicit)
        source.plans.clear()
        target.plans.clear()

    def _add_relation(self, model: BoundModel, relation: BoundRelation, declared: Relation, *, implicit: bool) -> None:
        if relation.name not in model.fields and relation.name not in model.relations:
            model.relations[relation.name] = relation
            self._made.append((model, relation.name))
            return
        if implicit and relation.name in model.fields:
            return  # a field wins its name; the relation can be declared under another
        taken = "a field" if relation.name in model.fields else "another relation"
        msg = f"a relation of {model.name} with {relation.target} would be called {relation.name!r}, as {taken} is"
        which = "reverse" if relation.many else "name"
        hint = f"write Annotated[…, {type(declared).__name__}({declared.model!r}, {which}='…')]"
        raise ModelError(msg, hint=hint, where=_place(model, relation=relation.name), code="duplicate-relation")


def _place(model: BoundModel, **inner: str) -> dict[str, str | int]:
    file = {"file": model.spec.place} if model.spec.place else {}
    return {"model": model.name, **file, **inner}


def _folded(name: str) -> str:
    return name.replace("_", "").lower()
