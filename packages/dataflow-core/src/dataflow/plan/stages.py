"""The stages of a plan, and the order in which features edit it."""

from collections.abc import Iterable
from enum import IntEnum
from graphlib import CycleError, TopologicalSorter
from typing import Any

from dataflow.errors import ModelError
from dataflow.plugins.specs import Feature


class Stage(IntEnum):
    """When a feature acts; features are ordered by stage, then by their `before` and `after`, then by name."""

    AUTHORIZE = 10
    SCOPE = 20
    VERSION = 30
    ENCODE = 40
    EXECUTE = 50
    DECODE = 60
    RECORD = 70
    NOTIFY = 80


def ordered(features: Iterable[Feature], model: str) -> tuple[Feature, ...]:
    """Order the features of a model, which have different names.

    Raises:
        ModelError: `before` and `after` form a cycle.
    """
    by_name: dict[str, Feature] = {}
    for feature in sorted(features, key=lambda f: (int(f.stage), f.name)):
        by_name[feature.name] = feature
    graph: dict[str, set[str]] = {name: set() for name in by_name}
    for name, feature in by_name.items():
        graph[name] |= set(feature.after) & by_name.keys()
        for later in set(feature.before) & by_name.keys():
            graph[later].add(name)
    sorter: TopologicalSorter[str] = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        path = " -> ".join(error.args[1])
        msg = f"the features of model {model} wait for each other: {path}"
        raise ModelError(msg, hint="remove one `before` or `after`", where={"model": model}) from error
    order: list[Any] = []
    position = {name: index for index, name in enumerate(by_name)}
    ready: list[str] = []
    while sorter.is_active():
        ready += sorter.get_ready()
        ready.sort(key=position.__getitem__)
        name = ready.pop(0)
        order.append(by_name[name])
        sorter.done(name)
    return tuple(order)
