"""The cache of plans: least recently used first out, with a counter of compilations."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class PlanCache(Generic[T]):
    """Plans by shape.

    Attributes:
        compilations: how many plans were compiled so far.
    """

    def __init__(self, size: int = 512) -> None:
        self._plans: OrderedDict[Hashable, T] = OrderedDict()
        self._size = size
        self.compilations = 0

    def peek(self, key: Hashable) -> T | None:
        """Return the plan of a shape, if it is known."""
        plan = self._plans.get(key)
        if plan is not None:
            try:  # noqa: SIM105  # contextlib.suppress costs more than all the rest
                self._plans.move_to_end(key)
            except KeyError:  # another thread dropped it just now; ours is still good
                pass
        return plan

    def put(self, key: Hashable, plan: T) -> None:
        """Keep a plan."""
        self._plans[key] = plan
        while len(self._plans) > self._size:
            self._plans.popitem(last=False)

    def get(self, key: Hashable, compile_plan: Callable[[], T]) -> T:
        """Return the plan of a shape, compiled on first use. A failing compilation leaves no trace."""
        plan = self.peek(key)
        if plan is None:
            plan = compile_plan()
            self.compilations += 1
            self.put(key, plan)
        return plan

    def clear(self) -> None:
        """Forget all plans."""
        self._plans.clear()

    def __len__(self) -> int:
        return len(self._plans)
