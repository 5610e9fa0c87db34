"""The models: five tables of the data set and one summary."""

from datetime import datetime
from typing import Annotated

from dataflow import DataFlow, Relation


class Airline:
    """A carrier and its two-letter code."""

    __dataflow__ = {"primary_key": ["carrier"], "timestamps": False}

    carrier: str
    name: str


class Airport:
    """An airport of the United States' list; the data also has flights to a few that are not on it."""

    __dataflow__ = {"primary_key": ["faa"], "timestamps": False}
    __indexes__ = [{"name": "airports_by_tzone", "fields": ["tzone"]}]

    faa: str
    name: str
    lat: float
    lon: float
    alt: int
    tz: int
    dst: str
    tzone: str | None


class Plane:
    """An aircraft by its tail number."""

    __dataflow__ = {"primary_key": ["tailnum"], "timestamps": False}
    __indexes__ = [{"name": "planes_by_manufacturer", "fields": ["manufacturer"]}]

    tailnum: str
    year: int | None
    type: str
    manufacturer: str
    model: str
    engines: int
    seats: int
    speed: int | None
    engine: str


class Weather:
    """One hour's weather at one of the three origins. It has no key of its own, so it gets an `id`."""

    __dataflow__ = {"timestamps": False}
    __indexes__ = [{"name": "weather_by_hour", "fields": ["origin", "time_hour"], "unique": True}]

    origin: Annotated[str, Relation("Airport", name="airport", reverse="weather")]
    year: int
    month: int
    day: int
    hour: int
    temp: float | None
    dewp: float | None
    humid: float | None
    wind_dir: int | None
    wind_speed: float | None
    wind_gust: float | None
    precip: float
    pressure: float | None
    visib: float
    time_hour: datetime


class Flight:
    """A scheduled departure from New York City in 2013.

    The relations are no foreign keys: real data has orphans, and a flight to an unlisted airport is still a flight.
    """

    __dataflow__ = {"timestamps": False}
    __indexes__ = [
        {"name": "flights_by_departure", "fields": ["time_hour", "carrier", "flight"], "unique": True},
        {"name": "flights_by_carrier", "fields": ["carrier"]},
        {"name": "flights_by_dest", "fields": ["dest"]},
        {"name": "flights_by_tailnum", "fields": ["tailnum"]},
    ]

    year: int
    month: int
    day: int
    dep_time: int | None
    sched_dep_time: int
    dep_delay: int | None
    arr_time: int | None
    sched_arr_time: int
    arr_delay: int | None
    carrier: Annotated[str, Relation("Airline", name="airline", reverse="flights")]
    flight: int
    tailnum: Annotated[str | None, Relation("Plane", name="plane", reverse="flights")]
    origin: Annotated[str, Relation("Airport", name="origin_airport", reverse="departures")]
    dest: Annotated[str, Relation("Airport", name="dest_airport", reverse="arrivals")]
    air_time: int | None
    distance: int
    hour: int
    minute: int
    time_hour: datetime
    status: str = "arrived"  # not in the files: the report sets it to "cancelled" or "diverted"


class CarrierMonth:
    """How one carrier did in one month; the report computes these rows and upserts them."""

    __dataflow__ = {"primary_key": ["carrier", "month"], "timestamps": False}

    carrier: Annotated[str, Relation("Airline", name="airline", reverse="months")]
    month: int
    flights: int
    distance: int
    dep_delay: float | None


MODELS = (Airline, Airport, Plane, Weather, Flight, CarrierMonth)


def open_database(url: str, schema: str) -> DataFlow:
    """Return a DataFlow on that database that knows the models. Tables are created when a workflow first needs them.

    Args:
        url: of the database.
        schema: where the tables are, in PostgreSQL.
    """
    settings = {"postgres_schema": schema} if url.startswith("postgres") else {}
    db = DataFlow(url, **settings)
    for model in MODELS:
        db.model(model)
    return db
