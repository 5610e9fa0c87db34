"""Makes a trip that goes wrong smaller, as long as it still goes wrong in the same way."""

from collections.abc import Iterator

import attrs

from dataflow.migrations.proof.benches import Bench
from dataflow.migrations.proof.trips import Divergence, Report, Trip, buildable, travel


def fault(bench: Bench, trip: Trip) -> Divergence | None:
    """Return what goes wrong on a trip."""
    if buildable(bench, trip.before) or buildable(bench, trip.after):
        return None
    try:
        travel(bench, trip, Report())
    except Divergence as divergence:
        return divergence
    return None


def shrunk(bench: Bench, trip: Trip, first: Divergence, *, most: int = 400) -> tuple[Trip, Divergence]:
    """Return a smaller trip that goes wrong in the same way, and how it does.

    Args:
        bench: where trips are made.
        trip: one that goes wrong.
        first: how it does.
        most: how many trips are tried.
    """
    tried, found = 0, first
    again = True
    while again:
        again = False
        for smaller in _smaller(trip):
            tried += 1
            if tried > most:
                return trip, found
            wrong = fault(bench, smaller)
            if wrong is not None and wrong.kind == first.kind:
                trip, found, again = smaller, wrong, True
                break
    return trip, found


def _smaller(trip: Trip) -> Iterator[Trip]:
    """Yield trips with less: tables, then everything else, in both schemas; changes undone; fewer rows."""
    numbers = {**trip.before.parts, **trip.after.parts}
    for number in sorted(numbers, key=lambda n: (numbers[n].kind != "table", -n)):
        yield attrs.evolve(trip, before=trip.before.without(number), after=trip.after.without(number))
    for number, part in trip.after.parts.items():
        old = trip.before.parts.get(number)
        if old is None:
            yield attrs.evolve(trip, after=trip.after.without(number))
        elif old != part:
            yield attrs.evolve(trip, after=trip.after.with_(old))
    for rows in (0, 1):
        if rows < trip.rows:
            yield attrs.evolve(trip, rows=rows)
    if trip.large:
        yield attrs.evolve(trip, large=False)
