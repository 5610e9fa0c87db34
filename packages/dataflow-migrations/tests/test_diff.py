"""Differences that round trips of random schemas have shown to be wrong, one test each."""

import attrs
import pytest

from dataflow.catalog import Catalog, Column, Constraint, EnumType, Index, IndexKey, Sequence, Table, View
from dataflow.migrations.diff import changes
from dataflow.migrations.renames import Renames


def table(name, *columns, constraints=(), indexes=()):
    return Table(name, {c.name: c for c in columns}, tuple(constraints), {i.name: i for i in indexes})


def catalog(*tables, **others):
    return Catalog({t.name: t for t in tables}, **others)


def kinds(found, wanted, **how):
    return [(change.kind, change.name) for change in changes(found, wanted, **how)]


def counting(owner, sequence, *, quoted=""):
    name, _, column = owner.partition(".")
    id_ = Column(column, "integer", nullable=False, default=f"nextval('{quoted or sequence}'::regclass)")
    return catalog(table(name, id_), sequences={sequence: Sequence(sequence, "AS integer", owner)})


@pytest.mark.parametrize(
    ("wanted", "renames"),
    [
        (counting("u.id", "u_id_seq"), Renames({"t": "u"})),
        (counting("t.key", "t_key_seq"), Renames(columns={"t": {"id": "key"}})),
        (counting("T t.id", "T t_id_seq", quoted='"T t_id_seq"'), Renames({"t": "T t"})),
    ],
)
def test_the_sequence_of_a_renamed_column_is_renamed_for_a_new_one_would_count_from_the_beginning(wanted, renames):
    made = kinds(counting("t.id", "t_id_seq"), wanted, renames=renames)
    assert [kind for kind, _ in made] == [f"rename_{'table' if renames.tables else 'column'}", "rename_sequence"]


ID = Column("id", "bigint", nullable=False)
KEY = Constraint("t_pkey", "primary key", ("id",), "PRIMARY KEY (id)")
TO_T = Constraint("u_t", "foreign key", ("t",), "FOREIGN KEY (t) REFERENCES t(id)", "t", ("id",))


def test_the_reference_of_a_table_that_goes_is_dropped_before_the_key_it_refers_to():
    found = catalog(table("t", ID, constraints=[KEY]), table("u", Column("t", "bigint"), constraints=[TO_T]))
    made = kinds(found, catalog(table("t", ID)))
    assert made == [("drop_constraint", "u_t"), ("drop_constraint", "t_pkey"), ("drop_table", "u")]


def test_a_reference_that_is_made_anew_gets_its_new_name_at_once():
    other = Constraint("other", "foreign key", ("t",), TO_T.definition, "t", ("id",))
    wider = Column("id", "numeric", nullable=False)
    found, wanted = (
        catalog(table("t", id_, constraints=[KEY]), table("u", Column("t", "bigint"), constraints=[key]))
        for id_, key in ((ID, TO_T), (wider, other))
    )
    assert kinds(found, wanted) == [("drop_constraint", "u_t"), ("alter_column", "id"), ("add_constraint", "other")]


def test_a_new_table_refers_to_a_key_that_is_new_as_well_once_it_is_there():
    new = table("u", Column("t", "bigint"), constraints=[TO_T])
    made = kinds(catalog(table("t", ID)), catalog(table("t", ID, constraints=[KEY]), new))
    assert made == [("create_table", "u"), ("add_constraint", "t_pkey"), ("add_constraint", "u_t")]
    made = changes(catalog(table("t", ID, constraints=[KEY])), catalog(table("t", ID, constraints=[KEY]), new))
    assert [(change.kind, change.after) for change in made] == [("create_table", new)]


def test_names_of_constraints_and_indexes_are_free_when_others_get_them():
    unique = Constraint("a", "unique", ("id",), "UNIQUE (id)")
    index = Index("b", (IndexKey("id"),), ("id",), definition="CREATE INDEX …")
    found = catalog(table("t", ID, constraints=[unique], indexes=[index]))
    new = attrs.evolve(unique, name="b"), attrs.evolve(index, name="c")
    made = kinds(found, catalog(table("t", ID, constraints=new[:1], indexes=new[1:])))
    assert made == [("rename_index", "c"), ("rename_constraint", "b")]


def test_the_names_of_types_and_sequences_that_go_are_free_for_tables():
    others = {"enums": {"at": EnumType("at", ("a",))}, "sequences": {"no": Sequence("no", "")}}
    found = catalog(views={"v": View("v", "SELECT note, at_2")}, **others)
    made = kinds(found, catalog(table("at", ID), table("no", ID)))[1:]
    assert made == [("drop_enum", "at"), ("drop_sequence", "no"), ("create_table", "at"), ("create_table", "no")]


def test_a_type_goes_after_the_columns_that_leave_it():
    found = catalog(table("t", Column("a", "mood")), enums={"mood": EnumType("mood", ("a",))})
    assert kinds(found, catalog(table("t", Column("a", "text")))) == [("alter_column", "a"), ("drop_enum", "mood")]


A, B = Column("a", "text"), Column("b", "text", generated="upper(a)", stored=True)


def test_what_was_computed_is_kept_before_what_it_is_computed_from_goes():
    found, wanted = catalog(table("t", A, B)), catalog(table("t", Column("b", "text", nullable=False)))
    made = changes(found, wanted)
    assert [(c.kind, c.name) for c in made] == [("alter_column", "b"), ("drop_column", "a"), ("alter_column", "b")]
    assert made[0].after == Column("b", "text")


def test_a_computed_column_that_demands_values_from_now_on_is_not_made_anew():
    wanted = Column("b", "text", nullable=False, generated="upper(a)", stored=True)
    assert kinds(catalog(table("t", A, B)), catalog(table("t", A, wanted))) == [("alter_column", "b")]


def test_indexes_of_expressions_that_read_a_column_which_is_made_anew_are_made_anew():
    key = IndexKey("lower(b)", nulls_first=False)
    some = [Index("i", (key,), (), definition="CREATE INDEX …")]
    other = Column("b", "text", generated="lower(a)", stored=True)
    made = kinds(catalog(table("t", A, B, indexes=some)), catalog(table("t", A, other, indexes=some)))
    assert made == [("drop_index", "i"), ("drop_column", "b"), ("add_column", "b"), ("create_index", "i")]


def test_a_computed_column_is_added_after_what_it_is_computed_from():
    made = kinds(catalog(table("t", ID)), catalog(table("t", B, A, ID)))
    assert made == [("add_column", "a"), ("add_column", "b")]


def test_null_is_no_value_for_rows_that_have_none():
    found, wanted = (catalog(table("t", Column("a", "TEXT", nullable=n, default="NULL"))) for n in (True, False))
    assert [change.value for change in changes(found, wanted, values={("t", "a"): "NULL"})] == [None]


def test_names_that_views_seem_to_read_from_each_other_are_no_reason_to_fail():
    views = {
        "kind": View("kind", 'CREATE VIEW "kind" AS SELECT a FROM t', reads=("select", "t")),
        "select": View("select", 'CREATE VIEW "select" AS SELECT a FROM "kind"', reads=("kind",)),
    }
    found, wanted = (catalog(table("t", Column("a", type_)), views=views) for type_ in ("text", "integer"))
    made = kinds(found, wanted, loose=True)
    assert [kind for kind, _ in made] == ["drop_view", "drop_view", "alter_column", "create_view", "create_view"]


def test_what_names_an_enum_type_that_is_made_anew_steps_aside():
    check = Constraint("sad", "check", ("m",), "CHECK ((m <> 'sad'::mood))")
    key = IndexKey("m", nulls_first=False)
    some = Index("some", (key,), ("m",), where="(m = 'ok'::mood)", definition="CREATE INDEX …")
    plain = Index("plain", (key,), ("m",), definition="CREATE INDEX …")
    moods = table("t", Column("m", "mood"), constraints=[check], indexes=[some, plain])
    found, wanted = (
        catalog(moods, enums={"mood": EnumType("mood", labels)}) for labels in (("sad", "ok"), ("ok", "sad"))
    )
    made = kinds(found, wanted)
    assert made == [
        ("drop_index", "some"), ("drop_constraint", "sad"), ("alter_enum", "mood"), ("add_constraint", "sad"),
        ("create_index", "some"),
    ]  # fmt: skip
