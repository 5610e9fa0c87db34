"""Class names of existing tables: right, or as the table is called; never a word that does not exist."""

import pytest

from dataflow import naming
from dataflow.migrations.class_names import class_name, singular

NOUNS = """
account address alias analysis area article audio axis base basis batch bonus book box branch bus business buzz cache
calorie campus canvas case category census child church city class clause company cookie country course criterion
customer data database datum day dictionary disease dish dwarf echo employee entry equipment exercise expense feedback
fish fix franchise gas genre goose half hero horse house index information invoice journey key knife leaf lease lens
license life loss man match matrix media menu mouse movie news niche nurse order page pass person phase photo policy
potato prefix price prize process product property purchase purpose quiz release response schema search selfie sense
series sheep shelf shoe size species spouse staff status story survey switch tax tomato tooth user valve video virus
visa volcano warehouse wife witness woman zombie
""".split()  # noqa: SIM905


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("users", "User"),
        ("user", "User"),
        ("statuses", "Status"),
        ("status", "Status"),
        ("addresses", "Address"),
        ("address", "Address"),
        ("movies", "Movie"),
        ("categories", "Category"),
        ("caches", "Cache"),
        ("houses", "House"),
        ("boxes", "Box"),
        ("bus", "Bus"),
        ("buses", "Bus"),
        ("people", "Person"),
        ("children", "Child"),
        ("indices", "Index"),
        ("analyses", "Analysis"),
        ("analysis", "Analysis"),
        ("criteria", "Criteria"),
        ("data", "Data"),
        ("news", "News"),
        ("series", "Series"),
        ("leaves", "Leaves"),
        ("axes", "Axes"),
        ("sms", "Sms"),
        ("order_details", "OrderDetail"),
        ("Order Details", "OrderDetail"),
        ("EmployeeTerritories", "EmployeeTerritory"),
        ("InvoiceLine", "InvoiceLine"),
        ("USERS", "User"),
        ("HTTPServers", "HttpServer"),
        ("alembic_version", "AlembicVersion"),
        ("tbl-users", "TblUser"),
        ("größen", "Größen"),
        ("2fa_tokens", ""),
        ("___", ""),
        ("", ""),
    ],
)
def test_a_table_gives_the_name_of_its_class(table: str, name: str) -> None:
    assert class_name(table) == name


@pytest.mark.parametrize("noun", NOUNS)
def test_a_plural_gives_its_singular_or_stays(noun: str) -> None:
    assert singular(naming.plural(noun)) in (noun, naming.plural(noun))


@pytest.mark.parametrize("noun", NOUNS)
def test_a_singular_stays(noun: str) -> None:
    assert singular(noun) == noun


def test_most_plurals_give_their_singular() -> None:
    stay = [noun for noun in NOUNS if singular(naming.plural(noun)) != noun]
    ours = {
        "analysis",
        "axis",
        "base",
        "basis",
        "criterion",
        "datum",
        "dwarf",
        "echo",
        "leaf",
        "life",
        "lens",
        "volcano",
    }
    assert set(stay) <= ours


@pytest.mark.parametrize("one", [*naming.IRREGULAR])
def test_irregular_plurals_are_those_of_the_naming_rule(one: str) -> None:
    assert singular(naming.IRREGULAR[one]) in (one, naming.IRREGULAR[one])
