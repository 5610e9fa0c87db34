"""Names: whatever a table, a field, an index or an aggregate is called works, or is refused at registration."""

from typing import Annotated, Any, ClassVar

import pytest

from dataflow import ForeignKey
from dataflow.errors import DataFlowError, ModelError, UniqueError
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires

RESERVED = (
    "all", "analyze", "and", "array", "as", "asc", "authorization", "between", "by", "case", "check", "collate",
    "column", "constraint", "create", "cross", "current_date", "current_user", "default", "desc", "distinct", "do",
    "else", "end", "except", "exists", "false", "fetch", "for", "foreign", "from", "grant", "group", "having", "in",
    "index", "initially", "insert", "intersect", "into", "is", "join", "key", "lateral", "leading", "like", "localtime",
    "natural", "new", "not", "null", "old", "on", "only", "or", "order", "overlaps", "placing", "primary", "references",
    "returning", "row", "select", "session_user", "set", "similar", "some", "symmetric", "table", "then", "to",
    "trailing", "transaction", "true", "union", "unique", "update", "user", "using", "variadic", "verbose", "when",
    "where", "window", "with", "oid", "rowid", "value", "type",
)  # fmt: skip
"""Words that one database or another reserves, or gives a meaning of its own."""
TROUBLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "another table in capitals": ({"n": int}, "casetable", "i"),
    "two fields in capitals": ({"Name": int, "name": int}, "ok", "i"),
    "a long table": ({"n": int}, "x" * 64, "i"),
    "a long table in bytes": ({"n": int}, "ä" * 32, "i"),
    "a long field": ({"x" * 64: int}, "ok", "i"),
    "a long field in bytes": ({"ä" * 32: int}, "ok", "i"),
    "a long index": ({"n": int}, "ok", "x" * 64),
    "a long index in bytes": ({"n": int}, "ok", "ä" * 32),
    "a table with NUL": ({"n": int}, "a\0b", "i"),
    "an operator": ({"$inc": int}, "ok", "i"),
    "a path": ({"a.b": int}, "ok", "i"),
    "all": ({"*": int}, "ok", "i"),
    **{f"the system column {name}": ({name: int}, "ok", "i") for name in ("ctid", "xmin", "xmax", "tableoid")},
}
"""What is wrong -> fields, table and index that are refused."""
ODD = (
    "größe", "имя", "日本語", "🦁", "with space", "it's", 'quo"ted', "semi;colon", "co:lon", "per%cent", "%(name)s",
    "back\\slash", "ques?tion", "dollar$1", "a-b", "a/b", "(a)", "[a]", "{a}", "a*", "--", "/* a */", "0", "1st",
    "MixedCase", "UPPER", "tab\there", "x" * 63, "ä" * 31,
)  # fmt: skip


class TestIdentifiers(Suite):
    """Names are quoted, always."""

    conformance_area: ClassVar[str] = "identifiers"
    reads_only: ClassVar[bool] = True  # each test has its own tables

    def roundtrip(self, bench: Bench, model: str, field: str) -> None:
        """Use a field in every part of every statement."""
        made = bench.create(model, {field: 1})
        assert made[field] == 1
        assert bench.update(model, made["id"], {field: {"$inc": 1}})[field] == 2
        ids = bench.bulk_create(model, [{field: 5}, {field: 4}], return_ids=True)["ids"]
        assert bench.bulk_update(model, filter={field: 5}, update={field: 6}) == {"updated": 1}
        assert bench.bulk_update(model, data=[{"id": ids[1], field: 3}])["updated"] == 1
        upserted = bench.bulk_upsert(model, [{field: 6}, {field: 9}], [field])
        assert (upserted["created"], upserted["updated"]) == (1, 1)
        assert bench.upsert(model, {field: 9}, create={})["created"] is False
        sort = [{field: -1}]
        page = bench.list(model, {field: {"$in": [2, 3, 6, 9]}}, sort=sort, limit=3, fields=["id", field])
        assert keys_of(page, field) == [9, 6, 3]
        rest = bench.list(model, sort=sort, limit=3, cursor=page["next_cursor"])
        assert keys_of(rest, field) == [2]
        aggregate = {field + "!": {"$sum": field}}
        groups = bench.aggregate(model, group_by=[field], aggregate=aggregate, sort=[{field: 1}])["groups"]
        assert [(group[field], group[field + "!"]) for group in groups] == [(n, n) for n in (2, 3, 6, 9)]
        with pytest.raises(UniqueError) as caught:
            bench.create(model, {field: 9})
        assert caught.value.message == f"a record with that {field} exists already"

    @requires("any_identifier")
    def test_reserved_words_are_field_names(self, bench: Bench) -> None:
        words = list(RESERVED)
        bench.register("Words", dict.fromkeys(words, int), __tablename__="reserved_words")
        made = bench.create("Words", {word: number for number, word in enumerate(words)})
        assert [made[word] for word in words] == list(range(len(words)))
        changed = bench.update("Words", made["id"], {word: {"$inc": 1} for word in words})
        assert [changed[word] for word in words] == list(range(1, len(words) + 1))
        assert bench.count("Words", {word: changed[word] for word in words}) == {"count": 1}
        groups = bench.aggregate("Words", group_by=words[:30], aggregate={word: {"$max": word} for word in words[30:]})
        assert groups["groups"] == [{word: changed[word] for word in words}]

    @requires("any_identifier")
    def test_reserved_words_are_table_names(self, bench: Bench) -> None:
        for number, word in enumerate(RESERVED):
            model = f"Reserved{number}"
            bench.register(model, {"n": int}, __tablename__=word)
            assert bench.create(model, {"n": number})["n"] == number
            assert bench.list(model, {"n": {"$gte": 0}}, fields=["n"])["records"] == [{"n": number}]
            assert bench.bulk_delete(model, filter={"n": number}) == {"deleted": 1}
        assert set(RESERVED) <= set(bench.db.show_tables())

    @requires("any_identifier")
    @pytest.mark.parametrize("part", range(3))
    def test_any_text_is_the_name_of_a_table_a_field_and_an_index(self, bench: Bench, part: int) -> None:
        for name in ODD[part::3]:
            model = f"Odd{ODD.index(name)}"
            index = {"name": f"ux{name}"[: 63 if name.isascii() else 30], "fields": [name], "unique": True}
            bench.register(model, {name: int}, __tablename__=name, __indexes__=[index])
            self.roundtrip(bench, model, name)
            assert name in bench.db.show_tables()
            assert list(bench.db.discover_schema()[name]["columns"])[:2] == ["id", name]

    @requires("long_identifiers")
    def test_names_that_cannot_work_everywhere_are_refused_at_registration(self, bench: Bench) -> None:
        bench.register("Case", {"n": int}, __tablename__="CaseTable")
        for fields, table, index in TROUBLE.values():
            with pytest.raises(ModelError) as caught:
                bench.register(
                    "Refused", fields, __tablename__=table, __indexes__=[{"name": index, "fields": [*fields]}]
                )
            assert caught.value.hint
        assert "Refused" not in bench.db.models

    @requires("long_identifiers")
    def test_names_that_agree_in_their_first_sixty_bytes_are_told_apart(self, bench: Bench) -> None:
        start = "n" * 60
        for number, end in enumerate("ab"):
            index = {"name": f"{'i' * 60}{end}", "fields": [f"{start}{end}"], "unique": True}
            bench.register(
                f"Long{number}", {f"{start}a": int, f"{start}b": int}, __tablename__=f"{'t' * 60}{end}",
                __indexes__=[index],
            )  # fmt: skip
            made = bench.create(f"Long{number}", {f"{start}a": 1, f"{start}b": 2})
            assert (made[f"{start}a"], made[f"{start}b"]) == (1, 2)
            with pytest.raises(UniqueError):
                bench.create(f"Long{number}", {f"{start}a": 1, f"{start}b": 2})
            assert bench.create(f"Long{number}", {f"{start}a": 3, f"{start}b": 4})["id"] > made["id"]

    @requires("foreign_keys", "long_identifiers")
    def test_a_foreign_key_between_long_names_works(self, bench: Bench) -> None:
        name = "p" * 60
        bench.register("LongParent", {"n": int}, __tablename__=name)
        annotations: dict[str, Any] = {
            f"{'c' * 58}_id": Annotated[int, ForeignKey("LongParent", name="above", reverse="below")],
            f"{'c' * 58}_no": Annotated[int, ForeignKey("LongParent", name="beside", reverse="besides")],
        }
        bench.register("LongChild", annotations, __tablename__="q" * 63)
        parent = bench.create("LongParent", {"n": 1})["id"]
        child = bench.create("LongChild", dict.fromkeys(annotations, parent))
        assert bench.list("LongChild", {"above": {"n": 1}, "beside": {"n": 1}})["count"] == 1
        with pytest.raises(DataFlowError):
            bench.delete("LongParent", parent)
        bench.delete("LongChild", child["id"])

    def test_an_aggregate_may_have_any_name(self, bench: Bench) -> None:
        bench.register("Named", {"n": int}, __tablename__="named_aggregates")
        bench.bulk_create("Named", [{"n": 1}, {"n": 2}])
        names = [*ODD, "z" * 200, "z" * 199 + "y", "n n", ""]
        (group,) = bench.aggregate("Named", aggregate={name: {"$sum": "n"} for name in names})["groups"]
        assert group == dict.fromkeys(names, 3)
