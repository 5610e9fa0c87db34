"""What one does with loaded data: changes by filter, upserts, lists, filters through relations, aggregates."""

from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from dataflow import DataFlow
from dataflow.runtime import LocalRuntime

MAKERS = ("AIRBUS", "BOEING", "BOMBARDIER", "EMBRAER", "MCDONNELL DOUGLAS")


def change(db: DataFlow) -> dict[str, Any]:
    """Change the data; a second run changes it to the same. Returns node id -> result."""
    workflow = db.workflow()

    # Updates by filter: None means NULL, {"$not": None} that there is a value.
    workflow.add_node(
        "FlightBulkUpdateNode", "cancelled", {"filter": {"dep_time": None}, "update": {"status": "cancelled"}}
    )
    workflow.add_node(
        "FlightBulkUpdateNode",
        "diverted",
        {"filter": {"dep_time": {"$not": None}, "arr_delay": None}, "update": {"status": "diverted"}},
    )

    # An upsert: American Eagle (MQ) was renamed in 2014.
    workflow.add_node("AirlineUpsertNode", "renamed", {"where": {"carrier": "MQ"}, "create": {"name": "Envoy Air"}})

    # The groups of one node are the rows of the next.
    workflow.add_node(
        "FlightAggregateNode",
        "carrier_months",
        {
            "group_by": ["carrier", "month"],
            "aggregate": {
                "flights": {"$count": "*"},
                "distance": {"$sum": "distance"},
                "dep_delay": {"$avg": "dep_delay"},
            },
        },
    )
    workflow.add_node("CarrierMonthBulkUpsertNode", "summary")
    workflow.add_connection("carrier_months", "groups", "summary", "data")

    results, _ = LocalRuntime().execute(workflow.build())
    return results


def ask(db: DataFlow) -> dict[str, Any]:
    """Ask questions. Returns node id -> result."""
    workflow = db.workflow()
    totals = {
        "flights": {"$count": "*"},
        "distance": {"$sum": "distance"},
        "dep_delay": {"$avg": "dep_delay"},
        "arr_delay": {"$avg": "arr_delay"},
    }
    workflow.add_node("FlightAggregateNode", "all", {"aggregate": totals})
    workflow.add_node(
        "FlightAggregateNode",
        "by_carrier",
        {"group_by": ["carrier"], "aggregate": totals, "sort": [{"flights": -1}]},
    )
    workflow.add_node("FlightAggregateNode", "by_month", {"group_by": ["month"], "aggregate": totals})
    workflow.add_node("FlightAggregateNode", "by_status", {"group_by": ["status"], "aggregate": totals})
    workflow.add_node("AirlineListNode", "airlines")

    # Filters through relations, from a flight to the airport or the plane …
    workflow.add_node("FlightCountNode", "pacific_time", {"filter": {"dest_airport": {"tzone": "America/Los_Angeles"}}})
    for maker in MAKERS:
        workflow.add_node("FlightCountNode", maker, {"filter": {"plane": {"manufacturer": {"$startswith": maker}}}})
    # … and back from airports to the flights that arrive there.
    workflow.add_node(
        "AirportListNode",
        "united_beyond_4000_miles",
        {"filter": {"arrivals": {"carrier": "UA", "distance": {"$gt": 4000}}}, "fields": ["faa", "name"]},
    )

    # A list with what its records are related to; a relation that leads nowhere is None.
    workflow.add_node(
        "FlightListNode",
        "most_delayed",
        {
            "filter": {"dep_delay": {"$not": None}},
            "sort": [{"dep_delay": -1}],
            "limit": 5,
            "include": ["airline", "plane", "dest_airport"],
        },
    )
    results, _ = LocalRuntime().execute(workflow.build())
    return results


def show(changes: dict[str, Any], answers: dict[str, Any], console: Console) -> None:
    """Print the results."""
    names = {airline["carrier"]: airline["name"] for airline in answers["airlines"]["records"]}
    carriers = [(names[group["carrier"]], group) for group in answers["by_carrier"]["groups"]]
    console.print(totals_table("Carriers", [*carriers, ("all", answers["all"]["groups"][0])]))
    months = [(str(group["month"]), group) for group in answers["by_month"]["groups"]]
    console.print(totals_table("Months", months))

    table = Table("hours late", "flight", "carrier", "to", "plane built", title="Longest waits at the gate", box=SIMPLE)
    for flight in answers["most_delayed"]["records"]:
        plane, airport = flight["plane"], flight["dest_airport"]
        table.add_row(
            f"{flight['dep_delay'] / 60:.1f}",
            f"{flight['carrier']} {flight['flight']}",
            flight["airline"]["name"],
            airport["name"] if airport else flight["dest"],
            str(plane["year"]) if plane else "unknown",
        )
    console.print(table)

    makers = ", ".join(f"{maker} {answers[maker]['count']:,}" for maker in MAKERS)
    far = ", ".join(airport["name"] for airport in answers["united_beyond_4000_miles"]["records"])
    console.out(f"Cancelled: {changes['cancelled']['updated']:,}; diverted: {changes['diverted']['updated']:,}")
    console.out(f"To airports on Pacific time: {answers['pacific_time']['count']:,}")
    console.out(f"By the plane's maker: {makers}")
    console.out(f"United's destinations beyond 4,000 miles: {far or 'none'}")


def totals_table(title: str, rows: list[tuple[str, dict[str, Any]]]) -> Table:
    """Lay out totals per group; delays are averages in minutes."""
    table = Table("", title=title, box=SIMPLE)
    for column in ("flights", "miles", "dep. delay", "arr. delay"):
        table.add_column(column, justify="right")
    for name, group in rows:
        delays = [f"{delay:.1f}" if delay is not None else "-" for delay in (group["dep_delay"], group["arr_delay"])]
        table.add_row(name, f"{group['flights']:,}", f"{group['distance']:,}", *delays)
    return table
