"""Foreign keys of existing tables as relations whose names never clash, whatever the tables are called.

A foreign key from ``orders.customer_id`` to ``customers`` is the relation ``customer`` of Order, and ``orders`` of
Customer. Where a table refers to another one several times, the reverses are told apart by the forward names:
``billing_customer_orders``. A name that a field or another relation has gets a number.
"""

from collections.abc import Iterable, Mapping

import attrs

from dataflow import naming
from dataflow.fields import ForeignKey, Relation


@attrs.frozen
class Reference:
    """A reference between two models.

    Attributes:
        model: that refers.
        field: its field.
        target: the model it refers to.
        remote: the field of the target.
        on_delete: of a foreign key, as `ForeignKey` takes it; "" for a relation without one.
    """

    model: str
    field: str
    target: str
    remote: str
    on_delete: str


def relations(references: Iterable[Reference], taken: Mapping[str, set[str]]) -> dict[tuple[str, str], Relation]:
    """Return (model, field) -> the relation to annotate.

    Args:
        references: all that shall be made; at most one a field.
        taken: model -> names of its fields and relations.
    """
    names = {model: set(used) for model, used in taken.items()}
    ordered = sorted(references, key=lambda its: (its.model, its.field))
    forward: dict[Reference, str] = {}
    for reference in ordered:
        forward[reference] = _free(_forward(reference), names[reference.model])
    found: dict[tuple[str, str], Relation] = {}
    for reference in ordered:
        name = forward[reference]
        rivals = [its for its in ordered if (its.model, its.target) == (reference.model, reference.target)]
        many = naming.plural(naming.snake(reference.model))
        plain = len(rivals) == 1 or name == naming.snake(reference.target)
        reverse = _free(many if plain else f"{name}_{many}", names[reference.target])
        options = {"name": name, "reverse": reverse, "to": reference.remote}
        found[reference.model, reference.field] = (
            ForeignKey(reference.target, on_delete=reference.on_delete, **options)
            if reference.on_delete
            else Relation(reference.target, **options)
        )
    return found


def _forward(reference: Reference) -> str:
    """Return what a relation is called: its field without "id", else its target."""
    words = naming.snake(reference.field).replace(" ", "_").strip("_")
    for ending in ("_id", "_fk", "_key", "_code"):
        if words.endswith(ending) and len(words) > len(ending):
            return words.removesuffix(ending)
    target = naming.snake(reference.target)
    return target if words in ("id", reference.remote, naming.snake(reference.remote)) else f"{words}_{target}"


def _free(name: str, used: set[str]) -> str:
    """Return the name, or with the first number that makes it free, and note it as used."""
    found, number = name, 2
    while found in used:
        found, number = f"{name}_{number}", number + 1
    used.add(found)
    return found
