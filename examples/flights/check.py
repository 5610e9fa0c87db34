"""The independent check: the same numbers three ways, and those known from other publications of the data.

The CSV files are counted line by line, and the database is asked in SQL by the driver alone; neither touches DataFlow,
whose own answers are the third way.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .data import open_csv
from .raw import PostgresSchema, SQLiteFile
from .report import MAKERS

Numbers = dict[str, float]

KNOWN: Numbers = {
    "airlines": 16,
    "airports": 1_458,
    "planes": 3_322,
    "flights": 336_776,
    "flights of UA": 58_665,
    "flights of B6": 54_635,
    "flights of EV": 54_173,
    "flights of DL": 48_110,
    "flights of AA": 32_729,
    "cancelled": 8_255,
    "to airports not listed": 7_602,
    "tail numbers without a plane": 50_094,
    "without tail number": 2_512,
}


def from_files(limit: int | None) -> Numbers:
    """Count and sum the CSV files."""
    tables = {name: list(lines(name)) for name in ("airlines", "airports", "planes", "weather")}
    zones = {airport["faa"]: airport["tzone"] for airport in tables["airports"]}
    makers = {plane["tailnum"]: plane["manufacturer"] for plane in tables["planes"]}
    found: Counter[str] = Counter()
    carrier_months = set()
    for flight in islice(lines("flights"), limit):
        found["flights"] += 1
        found[f"flights of {flight['carrier']}"] += 1
        found["cancelled"] += flight["dep_time"] == "NA"
        found["diverted"] += flight["dep_time"] != "NA" and flight["arr_delay"] == "NA"
        found["to airports not listed"] += flight["dest"] not in zones
        found["to Pacific time"] += zones.get(flight["dest"]) == "America/Los_Angeles"
        found["without tail number"] += flight["tailnum"] == "NA"
        found["tail numbers without a plane"] += flight["tailnum"] != "NA" and flight["tailnum"] not in makers
        for maker in MAKERS:
            found[f"planes by {maker}"] += makers.get(flight["tailnum"], "").startswith(maker)
        for column in ("distance", "air_time", "dep_delay", "arr_delay"):
            if flight[column] != "NA":
                found[f"sum of {column}"] += int(flight[column])
                found[f"count of {column}"] += 1
        carrier_months.add((flight["carrier"], flight["month"]))
    return {
        **{name: len(rows) for name, rows in tables.items()},
        **found,
        "average of dep_delay": found["sum of dep_delay"] / max(found["count of dep_delay"], 1),
        "average of arr_delay": found["sum of arr_delay"] / max(found["count of arr_delay"], 1),
        "sum of precip": math.fsum(float(hour["precip"]) for hour in tables["weather"]),
        "sum of temp": math.fsum(float(hour["temp"]) for hour in tables["weather"] if hour["temp"] != "NA"),
        "hours of weather": len({(hour["origin"], hour["time_hour"]) for hour in tables["weather"]}),
        "carriers' months": len(carrier_months),
    }


def lines(name: str) -> Iterator[dict[str, str]]:
    """Read a file line by line, as text."""
    with open_csv(name) as file:
        yield from csv.DictReader(file)


def from_database(database: SQLiteFile | PostgresSchema) -> Numbers:
    """Ask the database by its driver, in SQL that both databases know."""
    flights = "SELECT count(*) FROM flights"
    questions = {
        **{
            table: f"SELECT count(*) FROM {table}" for table in ("airlines", "airports", "planes", "weather", "flights")
        },
        "cancelled": f"{flights} WHERE status = 'cancelled' AND dep_time IS NULL",
        "diverted": f"{flights} WHERE status = 'diverted'",
        "to airports not listed": f"{flights} WHERE dest NOT IN (SELECT faa FROM airports)",
        "to Pacific time": f"{flights} JOIN airports ON faa = dest WHERE tzone = 'America/Los_Angeles'",
        "without tail number": f"{flights} WHERE tailnum IS NULL",
        "tail numbers without a plane": f"{flights} WHERE tailnum NOT IN (SELECT tailnum FROM planes)",
        "sum of precip": "SELECT sum(precip) FROM weather",
        "sum of temp": "SELECT sum(temp) FROM weather",
        "hours of weather": "SELECT count(*) FROM (SELECT DISTINCT origin, time_hour FROM weather) AS hours",
        "carriers' months": "SELECT count(*) FROM carrier_months",
    }
    for column in ("distance", "air_time", "dep_delay", "arr_delay"):
        questions[f"sum of {column}"] = f"SELECT sum({column}) FROM flights"
        questions[f"count of {column}"] = f"SELECT count({column}) FROM flights"
    for column in (
        "dep_delay",
        "arr_delay",
    ):  # avg() would be a number of 16 digits in PostgreSQL, and a float of 17 here
        questions[f"average of {column}"] = (
            f"SELECT CAST(sum({column}) AS double precision) / count({column}) FROM flights"
        )
    for maker in MAKERS:
        starts = f"substr(manufacturer, 1, {len(maker)}) = '{maker}'"
        questions[f"planes by {maker}"] = f"{flights} JOIN planes USING (tailnum) WHERE {starts}"
    carriers = "SELECT 'flights of ' || carrier, count(*) FROM flights GROUP BY carrier ORDER BY carrier"
    answers = database.ask({**questions, "carriers": carriers})
    by_carrier = dict(map(tuple, answers.pop("carriers")))
    return {name: plain(rows[0][0]) for name, rows in answers.items()} | by_carrier


def plain(number: float | Decimal) -> float:
    """Return PostgreSQL's exact numbers as what JSON has."""
    if isinstance(number, Decimal):
        return int(number) if number == int(number) else float(number)
    return number


def from_dataflow(changes: dict[str, Any], answers: dict[str, Any]) -> Numbers:
    """Pick the same numbers out of what the workflows returned."""
    total = answers["all"]["groups"][0]
    return {
        "airlines": answers["airlines"]["count"],
        "flights": total["flights"],
        **{f"flights of {group['carrier']}": group["flights"] for group in answers["by_carrier"]["groups"]},
        "cancelled": changes["cancelled"]["updated"],
        "diverted": changes["diverted"]["updated"],
        "to Pacific time": answers["pacific_time"]["count"],
        **{f"planes by {maker}": answers[maker]["count"] for maker in MAKERS},
        "sum of distance": sum(group["distance"] for group in answers["by_month"]["groups"]),
        "average of dep_delay": total["dep_delay"],
        "average of arr_delay": total["arr_delay"],
        "carriers' months": changes["summary"]["total"],
    }


def compare(sources: dict[str, Numbers]) -> list[dict[str, Any]]:
    """Put the numbers of all sources side by side: a row per number, `ok` where the sources that have it agree."""
    rows = []
    for name in dict.fromkeys(name for numbers in sources.values() for name in numbers):
        found = {source: numbers[name] for source, numbers in sources.items() if name in numbers}
        first, *others = found.values()
        ok = bool(others) and all(math.isclose(first, other, rel_tol=1e-12) for other in others)
        rows.append({"what": name, **found, "ok": ok})
    return rows


def show(rows: list[dict[str, Any]], sources: list[str], console: Console) -> None:
    """Print the comparison: the most telling numbers, and those that differ."""
    table = Table("", title="Independent check", box=SIMPLE)
    for column in (*sources, ""):
        table.add_column(column, justify="right")
    for row in rows:
        if row["what"] in KNOWN or not row["ok"]:
            numbers = [f"{row[source]:,}" if source in row else "" for source in sources]
            table.add_row(row["what"], *numbers, "ok" if row["ok"] else "DIFFERS")
    console.print(table)
    wrong = sum(not row["ok"] for row in rows)
    console.out(f"{len(rows)} numbers compared: {f'{wrong} DIFFER' if wrong else 'all agree'}.")
