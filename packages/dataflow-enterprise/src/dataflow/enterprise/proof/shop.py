"""The models that random programs work on: which fields they have, how they refer to each other, and which features.

Plain data and `declare`; knows neither what operations mean nor how they are drawn.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from random import Random
from typing import Annotated, Any

import attrs

from dataflow import DataFlow, ForeignKey

FEATURES = ("multi_tenant", "soft_delete", "versioned", "audit_log", "protection")
OF_MODELS = FEATURES[:-1]
"""Those that stand in ``__dataflow__``; protection is a policy of the whole instance, about one model."""
SUBSETS: tuple[frozenset[str], ...] = tuple(
    frozenset(name for place, name in enumerate(FEATURES) if number >> place & 1)
    for number in range(2 ** len(FEATURES))
)
ACTIONS = ("restrict", "cascade", "set null")
REQUIRED: Any = object()
PROTECTED = "Customer"
DENIED_OPERATION = "bulk_delete"
DENIED_FIELD = "credit"
POLICY: Mapping[str, Any] = {
    "model": {PROTECTED: {"deny": [DENIED_OPERATION]}},
    "field": {PROTECTED: {DENIED_FIELD: {"deny": ["update"]}}},
}
"""One operation and one field of one model are refused."""


@attrs.frozen
class Field:
    """A field of a model: its kind (int, str, decimal), and how it is declared."""

    kind: str
    default: Any = REQUIRED
    nullable: bool = False
    unique: bool = False
    refers: str = ""
    enforced: bool = False

    def annotation(self, action: str) -> Any:
        """Return the annotation of the class."""
        kinds: Mapping[str, Any] = {"int": int, "str": str, "decimal": Decimal}
        found = kinds[self.kind]
        if self.nullable:
            found = found | None
        return Annotated[found, ForeignKey(self.refers, on_delete=action)] if self.enforced else found


MODELS: Mapping[str, Mapping[str, Field]] = {
    "Customer": {
        "email": Field("str", unique=True),
        "name": Field("str", default="nobody"),
        "credit": Field("int", default=0),
        "note": Field("str", default=None, nullable=True),
    },
    "Order": {
        "customer_id": Field("int", default=None, nullable=True, refers="Customer", enforced=True),
        "badge_id": Field("str", default=None, nullable=True, refers="Badge"),
        "number": Field("int", unique=True),
        "total": Field("decimal", default=None, nullable=True),
        "status": Field("str", default="open"),
    },
    "Line": {
        "order_id": Field("int", default=None, nullable=True, refers="Order", enforced=True),
        "sku": Field("str"),
        "quantity": Field("int", default=1),
    },
    "Badge": {
        "id": Field("str"),
        "customer_id": Field("int", default=None, nullable=True, refers="Customer"),
        "label": Field("str", default=""),
        "points": Field("int", default=0),
    },
}
"""The fields that users declare. Badges have keys of the client's; all others get them from the database."""
TABLES = {"Customer": "customers", "Order": "orders", "Line": "lines", "Badge": "badges"}
KEYED = "Badge"
"""The model whose key the client chooses."""


@attrs.frozen
class Relation:
    """One direction of a relation."""

    target: str
    here: str
    there: str
    many: bool


RELATIONS: Mapping[str, Mapping[str, Relation]] = {
    "Customer": {
        "orders": Relation("Order", "id", "customer_id", many=True),
        "badges": Relation("Badge", "id", "customer_id", many=True),
    },
    "Order": {
        "customer": Relation("Customer", "customer_id", "id", many=False),
        "badge": Relation("Badge", "badge_id", "id", many=False),
        "lines": Relation("Line", "id", "order_id", many=True),
    },
    "Line": {"order": Relation("Order", "order_id", "id", many=False)},
    "Badge": {
        "customer": Relation("Customer", "customer_id", "id", many=False),
        "orders": Relation("Order", "id", "badge_id", many=True),
    },
}


@attrs.frozen
class Shop:
    """The models with their features.

    Attributes:
        features: model -> those it has.
        actions: model with a foreign key -> its on_delete.
        placed: whether each tenant has a database or schema of its own.
    """

    features: Mapping[str, frozenset[str]]
    actions: Mapping[str, str]
    placed: bool = False

    def has(self, model: str, feature: str) -> bool:
        """Tell whether a model has a feature."""
        return feature in self.features[model]

    def scoped(self, model: str) -> bool:
        """Tell whether a column of the model says whose a record is."""
        return self.has(model, "multi_tenant") and not self.placed

    @property
    def protected(self) -> bool:
        """Whether there is a policy."""
        return "protection" in self.features[PROTECTED]

    def children(self, model: str) -> Iterator[tuple[str, str, str]]:
        """Yield the foreign keys that lead to a model: (child, field, on_delete)."""
        for child, fields in MODELS.items():
            for name, field in fields.items():
                if field.enforced and field.refers == model:
                    yield child, name, self.actions[child]

    def __str__(self) -> str:
        """Name the features by their first letters."""
        names = (f"{model}[{initials(features)}]" for model, features in self.features.items())
        actions = (f"{model}: {action}" for model, action in self.actions.items())
        return f"{' '.join(names)} ({', '.join(actions)})"


def initials(features: frozenset[str]) -> str:
    """Name features by their first letters, for tables."""
    return "".join(name[0] for name in FEATURES if name in features) or "-"


def shop_of(subset: frozenset[str], variant: int, *, placed: bool = False) -> Shop:
    """Return the models where customers and badges have a subset of the features.

    Args:
        subset: of customers and badges.
        variant: 0 to 8: the pair of on_delete; beyond, and for odd numbers, orders and lines have other features.
        placed: whether each tenant has a place of its own, so that every model is multi-tenant.
    """
    rng = Random(f"{sorted(subset)} {variant}")
    own = subset - {"protection"}
    found = {"Customer": subset, "Order": own, "Line": own, "Badge": own}
    if variant % 2:
        for model in ("Order", "Line"):
            found[model] = frozenset(name for name in OF_MODELS if rng.random() < 0.5)
    above = False
    for model in ("Customer", "Order", "Line"):  # what refers to a tenant's records belongs to a tenant
        above = above or "multi_tenant" in found[model]
        if above:
            found[model] |= {"multi_tenant"}
    if placed:
        found = {model: features | {"multi_tenant"} for model, features in found.items()}
    actions = {"Order": ACTIONS[variant % 3], "Line": ACTIONS[variant // 3 % 3]}
    return Shop(found, actions, placed)


def declare(db: DataFlow, shop: Shop, prefix: str = "") -> None:
    """Register the models on an instance; their tables begin with `prefix`."""
    for model, fields in MODELS.items():
        body: dict[str, Any] = {
            "__annotations__": {name: field.annotation(shop.actions.get(model, "")) for name, field in fields.items()},
            "__tablename__": prefix + TABLES[model],
            "__dataflow__": {name: True for name in OF_MODELS if shop.has(model, name)},
            "__indexes__": [
                {"name": f"uq_{prefix}{TABLES[model]}_{name}", "fields": [name], "unique": True}
                for name, field in fields.items()
                if field.unique
            ],
        }
        body |= {name: field.default for name, field in fields.items() if field.default is not REQUIRED}
        db.model(type(model, (), body))
