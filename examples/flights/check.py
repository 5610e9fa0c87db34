"""The independent check: three ways to the same numbers, and those known from the data's documentation.

The CSV files are counted line by line, the database file is asked in SQL by the standard library's sqlite3; neither
touches DataFlow, whose own answers are the third.
"""

import csv
import math
import sqlite3
from collections import Counter
from contextlib import closing
from itertools import islice
from typing import Any

from examples.flights.data import open_csv
from examples.flights.report import MAKERS

Numbers = dict[str, float | None]

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
    "without departure time": 8_255,
    "to airports not listed": 7_602,
    "with a tail number but no plane": 50_094,
    "without tail number": 2_512,
}

SUMS = ("distance", "air_time", "dep_delay", "arr_delay")


def from_csv(limit: int | None) -> Numbers:
    """Count and sum the CSV files."""
    tables = {}
    for name in ("airlines", "airports", "planes", "weather", "flights"):
        with open_csv(name) as file:
            tables[name] = list(islice(csv.DictReader(file), limit if name == "flights" else None))
    zones = {airport["faa"]: airport["tzone"] for airport in tables["airports"]}
    makers = {plane["tailnum"]: plane["manufacturer"] for plane in tables["planes"]}
    found = Counter({name: len(rows) for name, rows in tables.items()})
    for flight in tables["flights"]:
        found[f"flights of {flight['carrier']}"] += 1
        found["without departure time"] += flight["dep_time"] == "NA"
        found["diverted"] += flight["dep_time"] != "NA" and flight["arr_delay"] == "NA"
        found["to airports not listed"] += flight["dest"] not in zones
        found["without tail number"] += flight["tailnum"] == "NA"
        found["with a tail number but no plane"] += flight["tailnum"] not in ("NA", *()) and flight["tailnum"] not in makers
        found["to Pacific time"] += zones.get(flight["dest"]) == "America/Los_Angeles"
        for maker in MAKERS:
            found[f"by {maker}"] += makers.get(flight["tailnum"], "").startswith(maker)
        for column in SUMS:
            if flight[column] != "NA":
                found[f"sum of {column}"] += int(flight[column])
                found[f"{column} given"] += 1
    numbers: Numbers = dict(found)
    return numbers
