"""Time zones: an instant is the same whatever its offset, and comes back in UTC; dates and times of day never shift."""

from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Any, ClassVar

import pytest

from dataflow import DataFlow
from dataflow.errors import InputError
from dataflow.testing.conformance.bench import WAYS, Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires
from dataflow.testing.conformance.values import exactly

_HOUR = timedelta(hours=1)


class Berlin(tzinfo):
    """Summer time as in Berlin in 2025, without a database of time zones."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        """Two hours ahead of UTC in summer, else one; the hour that comes twice goes by `fold`."""
        return _HOUR + self.dst(when)

    def dst(self, when: datetime | None) -> timedelta:
        """Return what summer time adds."""
        if when is None:
            return timedelta(0)
        plain = when.replace(tzinfo=None)
        start, end = datetime(2025, 3, 30, 2), datetime(2025, 10, 26, 3)  # noqa: DTZ001
        doubtful = end - _HOUR <= plain < end
        summer = start <= plain < end and not (doubtful and when.fold)
        return _HOUR if summer else timedelta(0)

    def tzname(self, when: datetime | None) -> str:
        """Return the usual abbreviation."""
        return "CEST" if self.dst(when) else "CET"


BERLIN = Berlin()


def utc(*parts: int) -> datetime:
    """Return an instant in UTC."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


def naive(*parts: int) -> datetime:
    """Return a datetime without offset."""
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001


@requires("instants")
class TestZones(Suite):
    """Instants, dates and clocks."""

    conformance_area: ClassVar[str] = "time zones"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Flight:
            name: str
            leaves: datetime
            day: date | None = None
            at: time | None = None

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (datetime(2025, 7, 1, 12, tzinfo=BERLIN), utc(2025, 7, 1, 10)),
            (datetime(2025, 1, 1, 12, tzinfo=BERLIN), utc(2025, 1, 1, 11)),
            (datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN, fold=0), utc(2025, 10, 26, 0, 30)),
            (datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN, fold=1), utc(2025, 10, 26, 1, 30)),
            (datetime(2025, 1, 1, 0, 15, tzinfo=timezone(timedelta(hours=5, minutes=45))), utc(2024, 12, 31, 18, 30)),
            (datetime(2025, 1, 1, tzinfo=timezone(timedelta(hours=-12))), utc(2025, 1, 1, 12)),
            (datetime(2025, 1, 1, tzinfo=timezone(timedelta(seconds=1))), utc(2024, 12, 31, 23, 59, 59)),
            (datetime(1900, 1, 1, tzinfo=timezone(timedelta(minutes=53, seconds=28))), utc(1899, 12, 31, 23, 6, 32)),
        ],
    )
    def test_an_instant_is_the_same_whatever_its_offset(
        self, bench: Bench, given: datetime, expected: datetime
    ) -> None:
        for way in WAYS:
            made = bench.by(way).create("Flight", {"name": way, "leaves": given})
            assert exactly(made["leaves"]) == exactly(expected)
            assert exactly(bench.by(way).read("Flight", made["id"])["leaves"]) == exactly(expected)
        assert bench.count("Flight", {"leaves": given}) == bench.count("Flight", {"leaves": expected}) == {"count": 4}
        assert bench.count("Flight", {"leaves": {"$in": [given.astimezone(BERLIN)]}}) == {"count": 4}
        assert bench.count("Flight", {"leaves": {"$gt": given}}) == {"count": 0}

    def test_instants_are_sorted_and_grouped_by_time_not_by_their_text(self, calls: Bench) -> None:
        later, earlier = datetime(2025, 1, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, 1, 30, tzinfo=BERLIN)
        rows = [{"name": "later", "leaves": later}, {"name": "earlier", "leaves": earlier}]
        calls.bulk_create("Flight", [*rows, {"name": "same", "leaves": later.astimezone(BERLIN)}])
        assert keys_of(calls.list("Flight", sort="leaves"), "name") == ["earlier", "later", "same"]
        groups = calls.aggregate("Flight", group_by=["leaves"], aggregate={"n": {"$count": "*"}})["groups"]
        assert exactly(groups) == exactly([{"leaves": utc(2025, 1, 1, 0, 30), "n": 1}, {"leaves": later, "n": 2}])

    @pytest.mark.parametrize(
        ("meaning", "expected"),
        [("local", naive(2025, 7, 1, 12).astimezone(UTC)), ("utc", utc(2025, 7, 1, 12)), ("reject", None)],
    )
    def test_a_setting_says_what_a_datetime_without_offset_means(
        self, bench: Bench, meaning: str, expected: datetime | None
    ) -> None:
        given = naive(2025, 7, 1, 12)
        with bench.another(naive_datetimes=meaning) as other:
            if expected is None:
                with pytest.raises(InputError, match="without offset is refused"):
                    other.create("Flight", {"name": "a", "leaves": given})
                assert other.count("Flight") == {"count": 0}
                return
            made = other.create("Flight", {"name": "a", "leaves": given})
            assert exactly(made["leaves"]) == exactly(expected)
            assert other.count("Flight", {"leaves": given}) == {"count": 1}

    def test_text_in_filters_is_utc_unless_it_says_otherwise(self, calls: Bench) -> None:
        calls.create("Flight", {"name": "a", "leaves": utc(2025, 7, 1, 22, 30)})
        for text, count in (
            ("2025-07-01T22:30", 1), ("2025-07-01T22:30Z", 1), ("2025-07-02T00:30+02:00", 1),
            ("2025-07-01T22:30+02:00", 0),
        ):  # fmt: skip
            assert calls.count("Flight", {"leaves": text}) == {"count": count}, text
        for document, count in (
            ({"$lte": "2025-07-01"}, 1), ({"$lt": "2025-07-01"}, 0), ({"$gte": "2025-07-02"}, 0),
            ({"$between": ["2025-07-01", "2025-07-01"]}, 1), ({"$gt": "2025-07-01T22:30:00.000001"}, 0),
        ):  # fmt: skip
            assert calls.count("Flight", {"leaves": document}) == {"count": count}, document

    @requires("dates")
    def test_dates_and_times_of_day_never_shift(self, calls: Bench) -> None:
        day, at = date(2025, 3, 30), time(2, 30, 0, 1)
        made = calls.create(
            "Flight", {"name": "a", "leaves": datetime(2025, 3, 30, 0, 30, tzinfo=BERLIN), "day": day, "at": at}
        )
        assert exactly([made["day"], made["at"]]) == exactly([day, at])
        assert made["leaves"] == utc(2025, 3, 29, 23, 30)
        assert calls.count("Flight", {"day": "2025-03-30", "at": "02:30:00.000001"}) == {"count": 1}

    def test_timestamps_of_the_framework_are_now_in_utc(self, calls: Bench) -> None:
        before = datetime.now(UTC)
        made = calls.create("Flight", {"name": "a", "leaves": before})
        assert before - timedelta(seconds=1) < made["created_at"] < datetime.now(UTC) + timedelta(seconds=1)
        assert made["created_at"].tzinfo is UTC

    @requires("raw_sql")
    def test_sql_of_ones_own_takes_instants_of_any_offset(self, calls: Bench) -> None:
        leaves: Any = datetime(2025, 7, 1, 12, tzinfo=BERLIN)
        calls.sql("INSERT INTO flights (name, leaves) VALUES (:name, :leaves)", {"name": "a", "leaves": leaves})
        (record,) = calls.list("Flight", {"leaves": utc(2025, 7, 1, 10)})["records"]
        assert exactly(record["leaves"]) == exactly(utc(2025, 7, 1, 10))
        assert calls.sql("SELECT name FROM flights WHERE leaves = $1", [leaves]) == [{"name": "a"}]
