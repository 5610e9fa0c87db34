"""What a policy means: the truth table of its six levels, what its words cover, when rules of time hold, how it is
written.

The oracles here know nothing of the code: they say in the plainest words what is to be refused.
"""

from datetime import UTC, datetime, time
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow import DataFlow
from dataflow.enterprise.protection import LEVELS, OPERATIONS, Protection, Request, Rule, Window, decide
from dataflow.errors import ConfigurationError, WriteProtectedError
from dataflow.nodes.sql import run_sql

SUNDAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINE = frozenset({"books"})
SCOPES = {
    "global": {},
    "connection": {"connections": ["books"]},
    "model": {"models": ["Item"]},
    "operation": {},
    "field": {"models": ["Item"], "fields": ["total", "id"]},
    "runtime": {},
}
STATES = ("absent", "allow", "deny")
TABLE = list(product(STATES, repeat=len(LEVELS)))
DOES = {
    "create": {"create"},
    "update": {"update"},
    "delete": {"delete"},
    "upsert": {"create", "update"},
    "bulk_create": {"create"},
    "bulk_update": {"update"},
    "bulk_delete": {"delete"},
    "bulk_upsert": {"create", "update"},
    "restore": {"update"},
    "purge": {"delete"},
    "sql": {"create", "update", "delete"},
    "ddl": {"ddl"},
}


def policy_of(states, default):
    rules = [Rule(level, state, **SCOPES[level]) for level, state in zip(LEVELS, states, strict=True)
             if state != "absent"]  # fmt: skip
    return Protection(default, rules)


def is_refused(states, default, *, writes_the_field, unlocked=False):
    """The oracle: (refused, at which level)."""
    if unlocked:
        return False, None
    said = dict(zip(LEVELS, states, strict=True))
    if not writes_the_field:
        said["field"] = "absent"
    for level in LEVELS:
        if said[level] == "deny":
            return True, level
    if "allow" in said.values():
        return False, None
    return (default == "deny"), ("global" if default == "deny" else None)


# -- the truth table --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("default", ["allow", "deny"])
def test_the_truth_table_of_six_levels_is_that_of_the_oracle(default):
    compared = 0
    for states, (operation, does) in product(TABLE, DOES.items()):
        policy = policy_of(states, default)
        for effect in does:
            for written in [("total",), ()] if effect in ("create", "update") else [()]:
                found = decide(policy, Request(operation, effect, "Item", written, MINE), SUNDAY)
                refused, level = is_refused(states, default, writes_the_field=bool(written))
                assert found.permitted is not refused, (states, operation, effect, written)
                assert not refused or found.level == level, (states, operation, effect, written)
                compared += 1
    assert compared == 3**6 * (11 * 2 + 5)


class Calls:
    """Every operation of an instance, once."""

    def __init__(self, db):
        x = db.express_sync
        self.all = {
            "create": lambda: x.create("Item", {"total": 1}),
            "update": lambda: x.update("Item", -1, {"total": 1}),
            "delete": lambda: x.delete("Item", -1),
            "upsert": lambda: x.upsert("Item", {"id": 1}, {"total": 1}, {"total": 2}),
            "bulk_create": lambda: x.bulk_create("Item", [{"total": 1}]),
            "bulk_create as upsert": lambda: x.bulk_create(
                "Item", [{"id": 1, "total": 1}], conflict_resolution="upsert", key_fields=["id"]
            ),
            "bulk_update": lambda: x.bulk_update("Item", filter={"id": -1}, update={"total": 1}),
            "bulk_update by rows": lambda: x.bulk_update("Item", data=[{"id": -1, "total": 1}]),
            "bulk_delete": lambda: x.bulk_delete("Item", filter={"id": -1}),
            "bulk_upsert": lambda: x.bulk_upsert("Item", [{"id": 1, "total": 3}]),
            "sql": lambda: run_sql(db, "UPDATE items SET total = 1 WHERE id = -1", None),
            "read": lambda: x.read("Item", 1),
            "list": lambda: x.list("Item", limit=1),
            "sql that reads": lambda: run_sql(db, "SELECT count(*) FROM items", None),
        }
        self.reads = {"read", "list", "sql that reads"}

    def refused(self):
        """Make all calls; return those that were refused, with the level."""
        found = {}
        for name, call in self.all.items():
            try:
                call()
            except WriteProtectedError as error:
                found[name] = error.level
        return found


@pytest.mark.parametrize("default", ["allow", "deny"])
@pytest.mark.parametrize("first", STATES)
def test_the_truth_table_holds_for_every_operation_of_an_instance(first, default):
    with DataFlow(":memory:", name="books", protection=Protection()) as db:

        @db.model
        class Item:
            total: int = 0

        calls = Calls(db)
        assert calls.refused() == {}
        feature = next(feature for feature in db.core.models["Item"].features if feature.name == "protection")
        guard = next(guard for guard in db.core.guards if guard.name == "protection")
        for states in TABLE:
            if states[0] != first:
                continue
            feature.policy = guard.policy = policy_of(states, default)
            wanted = {}
            for name in calls.all.keys() - calls.reads:
                refused, level = is_refused(states, default, writes_the_field="delete" not in name)
                wanted |= {name: level} if refused else {}
            assert calls.refused() == wanted, (states, default)
        with db.unlocked(reason="a test"):
            assert calls.refused() == {}


# -- what the words of a rule cover -----------------------------------------------------------------------------------
def covers(word, operation, effect):
    """The oracle."""
    if word in ("all", operation):
        return True
    if word == "write":
        return operation != "ddl"
    return word == effect


@pytest.mark.parametrize("word", OPERATIONS)
def test_a_word_covers_the_operation_itself_and_what_does_the_same(word):
    for operation, does in DOES.items():
        for effect in does:
            request = Request(operation, effect, "Item")
            denied = not decide(Protection("allow", [Rule("global", "deny", [word])]), request, None).permitted
            allowed = decide(Protection("deny", [Rule("global", "allow", [word])]), request, None).permitted
            assert denied == allowed == covers(word, operation, effect), (operation, effect)


def test_a_rule_speaks_only_of_its_models_fields_and_connections():
    request = Request("update", "update", "Item", ("total",), MINE)
    for rule in (
        Rule("model", models=["Other"]),
        Rule("field", models=["Item"], fields=["name"]),
        Rule("field", models=["Other"], fields=["total"]),
        Rule("connection", connections=["elsewhere"]),
        Rule("operation", models=["Other"]),
        Rule("runtime", connections=["elsewhere"]),
    ):
        assert decide(Protection("allow", [rule]), request, SUNDAY).permitted, rule


def test_every_field_has_to_be_permitted():
    policy = Protection("deny", [Rule("field", "allow", ["update"], models=["Item"], fields=["note"])])
    assert decide(policy, Request("update", "update", "Item", ("note",)), None).permitted
    refused = decide(policy, Request("update", "update", "Item", ("note", "total")), None)
    assert (refused.permitted, refused.level, refused.field) == (False, "global", "total")
    assert not decide(policy, Request("update", "update", "Item", ()), None).permitted
    assert decide(policy, Request("update", "update", "Item", (), partial=True), None).permitted


def test_max_rows_counts_what_was_changed():
    policy = Protection("allow", [Rule("model", "deny", ["delete"], models=["Item"], max_rows=2)])
    for rows, permitted in ((None, True), (0, True), (2, True), (3, False), (float("inf"), False)):
        assert decide(policy, Request("bulk_delete", "delete", "Item", rows=rows), None).permitted is permitted


# -- properties -------------------------------------------------------------------------------------------------------
@st.composite
def rules(draw, effects=("deny", "allow")):
    level = draw(st.sampled_from(LEVELS))
    names = st.lists(st.sampled_from(["Item", "Other"]), min_size=1, max_size=2, unique=True)
    needed = {"connection": "connections", "model": "models", "field": "models"}.get(level)
    values = {needed: draw(names)} if needed == "models" else {}
    if needed == "connections":
        values = {needed: draw(st.lists(st.sampled_from(["books", "other"]), min_size=1, unique=True))}
    if level == "field":
        values["fields"] = draw(st.lists(st.sampled_from(["total", "name"]), min_size=1, unique=True))
    if level == "runtime" and draw(st.booleans()):
        hours = draw(st.tuples(st.integers(1, 23), st.integers(1, 23)).filter(lambda pair: pair[0] != pair[1]))
        days = draw(st.lists(st.sampled_from(["sat", "sun", "mon"]), unique=True))
        values["window"] = Window(
            tuple(days), time(hours[0]), time(hours[1]), draw(st.sampled_from(["UTC", "Asia/Tokyo"]))
        )
    words = draw(st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=3, unique=True))
    return Rule(level, draw(st.sampled_from(effects)), words, **values)


SETTINGS = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # time zones load on first use
policies = st.builds(Protection, st.sampled_from(["allow", "deny"]), st.lists(rules(), max_size=5))
requests = st.sampled_from(
    [(operation, effect) for operation, does in DOES.items() for effect in sorted(does)]
).flatmap(
    lambda pair: st.builds(
        Request,
        st.just(pair[0]),
        st.just(pair[1]),
        st.sampled_from([None, "Item", "Other"]),
        st.sampled_from([(), ("total",), ("name", "total")]),
        st.sampled_from([frozenset(), MINE]),
        st.sampled_from([None, 1.0]),
        st.booleans(),
        st.booleans(),
    )
)


@SETTINGS
@given(policies, rules(effects=["deny"]), requests, st.integers(0, 6))
def test_another_deny_never_permits_more(policy, rule, request, place):
    more = Protection(policy.default, [*policy.rules[:place], rule, *policy.rules[place:]])
    if decide(more, request, SUNDAY).permitted:
        assert decide(policy, request, SUNDAY).permitted


@SETTINGS
@given(policies, rules(effects=["allow"]), requests)
def test_another_allow_never_refuses_more_and_overrides_no_deny(policy, rule, request):
    before = decide(policy, request, SUNDAY)
    after = decide(Protection(policy.default, [*policy.rules, rule]), request, SUNDAY)
    if before.permitted:
        assert after.permitted
    elif not before.rule.startswith("default"):
        assert (after.permitted, after.level) == (False, before.level)


@SETTINGS
@given(policies, requests, st.randoms())
def test_the_order_of_rules_does_not_matter(policy, request, random):
    shuffled = list(policy.rules)
    random.shuffle(shuffled)
    one, other = decide(policy, request, SUNDAY), decide(Protection(policy.default, shuffled), request, SUNDAY)
    assert (one.permitted, one.level) == (other.permitted, other.level)


@SETTINGS
@given(policies, requests)
def test_frozen_means_that_everything_is_refused(policy, request):
    policy.freeze("moving house")
    found = decide(policy, request, SUNDAY)
    if not request.tentative:
        assert not found.permitted
    policy.thaw()
    assert policy.frozen == ""


@SETTINGS
@given(policies, requests)
def test_what_is_remembered_is_what_is_decided(policy, request):
    for _ in range(2):
        assert policy.decide(request, lambda: SUNDAY) == decide(policy, request, SUNDAY)


@SETTINGS
@given(policies)
def test_a_policy_is_equal_to_what_is_read_from_what_it_writes(policy):
    assert Protection.from_dict(policy.to_dict()) == policy


@settings(SETTINGS, max_examples=30)
@given(policies)
def test_a_policy_survives_a_toml_file(tmp_path_factory, policy):
    path = tmp_path_factory.mktemp("policy") / "protection.toml"
    document = policy.to_dict()
    lines = [f'default = "{document["default"]}"']
    for rule in document["rule"]:
        lines.append("[[rule]]")
        lines += [f"{name} = {value if isinstance(value, time) else toml(value)}" for name, value in rule.items()]
    path.write_text("\n".join(lines))
    assert Protection.from_toml(path) == policy


def toml(value):
    return "[" + ", ".join(f'"{item}"' for item in value) + "]" if isinstance(value, list) else f'"{value}"'


# -- time -------------------------------------------------------------------------------------------------------------
NIGHT = Window((), time(22), time(6), "UTC")
FRIDAY_NIGHT = Window(("fri",), time(22), time(6), "UTC")
BERLIN = Window((), time(9), time(17), "Europe/Berlin")
WHOLE_SUNDAY = Window(("sun",), zone="Asia/Tokyo")


@pytest.mark.parametrize(
    ("window", "instant", "inside"),
    [
        (NIGHT, "2026-03-06T21:59:59+00:00", False),
        (NIGHT, "2026-03-06T22:00:00+00:00", True),
        (NIGHT, "2026-03-07T00:00:00+00:00", True),
        (NIGHT, "2026-03-07T05:59:59+00:00", True),
        (NIGHT, "2026-03-07T06:00:00+00:00", False),
        (FRIDAY_NIGHT, "2026-03-06T23:00:00+00:00", True),  # a Friday
        (FRIDAY_NIGHT, "2026-03-07T05:00:00+00:00", True),  # its night
        (FRIDAY_NIGHT, "2026-03-06T05:00:00+00:00", False),  # Thursday's night
        (FRIDAY_NIGHT, "2026-03-07T23:00:00+00:00", False),
        (BERLIN, "2026-01-15T08:00:00+00:00", True),  # 9:00 in winter
        (BERLIN, "2026-07-15T07:00:00+00:00", True),  # 9:00 in summer
        (BERLIN, "2026-01-15T07:59:00+00:00", False),
        (BERLIN, "2026-07-15T15:00:00+00:00", False),
        (BERLIN, "2026-01-15T03:00:00-05:00", True),  # the same instant, told elsewhere
        (WHOLE_SUNDAY, "2026-02-28T15:00:00+00:00", True),
        (WHOLE_SUNDAY, "2026-02-28T14:59:00+00:00", False),
        (WHOLE_SUNDAY, "2026-03-01T14:59:59+00:00", True),
        (WHOLE_SUNDAY, "2026-03-01T15:00:00+00:00", False),
    ],
)
def test_a_window_is_a_time_on_the_wall_clock_of_its_zone(window, instant, inside):
    assert window.covers(datetime.fromisoformat(instant)) is inside
    request = Request("create", "create", "Item")
    policy = Protection("allow", [Rule("runtime", window=window)])
    assert decide(policy, request, datetime.fromisoformat(instant)).permitted is not inside
    policy = Protection("deny", [Rule("runtime", "allow", window=window)])
    assert decide(policy, request, datetime.fromisoformat(instant)).permitted is inside


def test_build_does_not_ask_the_clock():
    request = Request("create", "create", "Item", tentative=True)
    for effect in ("allow", "deny"):
        for default in ("allow", "deny"):
            policy = Protection(default, [Rule("runtime", effect, window=WHOLE_SUNDAY)])
            expected = default == "allow" or effect == "allow"
            assert decide(policy, request, SUNDAY).permitted is expected


def test_a_policy_may_have_a_clock_of_its_own():
    instants = iter([datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 3, 12, tzinfo=UTC)])
    policy = Protection("allow", [Rule("runtime", window=WHOLE_SUNDAY)], clock=lambda: next(instants))
    request = Request("create", "create", "Item")
    assert [policy.decide(request, lambda: SUNDAY).permitted for _ in range(2)] == [False, True]


# -- how a policy is written ------------------------------------------------------------------------------------------
EXAMPLE = """
default = "deny"

[global]
allow = ["write"]
deny = ["ddl"]

[connection.reporting]
deny = true
message = "reporting only reads"

[model.Invoice]
deny = ["delete"]

[[model.Order]]
allow = ["all"]
[[model.Order]]
deny = ["bulk_delete"]
max_rows = 100

[operation]
deny = "sql"
models = ["Invoice"]

[field.Invoice.total]
deny = ["update"]

[runtime]
deny = ["write"]
days = ["sat", "sun"]
from = 22:00:00
until = "06:00"
zone = "Asia/Tokyo"
"""
RULES = (
    Rule("global", "deny", ["ddl"]),
    Rule("global", "allow", ["write"]),
    Rule("connection", connections=["reporting"], message="reporting only reads"),
    Rule("model", "deny", ["delete"], models=["Invoice"]),
    Rule("model", "allow", models=["Order"]),
    Rule("model", "deny", ["bulk_delete"], models=["Order"], max_rows=100),
    Rule("operation", "deny", ["sql"], models=["Invoice"]),
    Rule("field", "deny", ["update"], models=["Invoice"], fields=["total"]),
    Rule("runtime", "deny", ["write"], window=Window(("sat", "sun"), time(22), time(6), "Asia/Tokyo")),
)


def test_a_policy_reads_at_once(tmp_path):
    path = tmp_path / "protection.toml"
    path.write_text(EXAMPLE)
    policy = Protection.from_toml(path)
    assert policy == Protection("deny", RULES)
    assert Protection.from_dict(policy.to_dict()) == policy
    with DataFlow(":memory:", protection=path) as one, DataFlow(":memory:", protection=str(path)) as other:
        found = [guard.policy for db in (one, other) for guard in db.core.guards]
    assert found == [policy, policy]
    assert found[0].switch is not found[1].switch


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (RULES[0], '[global] deny = ["ddl"]'),
        (RULES[2], "[connection.reporting] deny = true"),
        (RULES[3], '[model.Invoice] deny = ["delete"]'),
        (RULES[5], '[model.Order] deny = ["bulk_delete"], max_rows = 100'),
        (RULES[6], '[operation] deny = ["sql"], models = ["Invoice"]'),
        (RULES[7], '[field.Invoice.total] deny = ["update"]'),
        (
            RULES[8],
            '[runtime] deny = ["write"], days = ["sat", "sun"], from = 22:00:00, until = 06:00:00, zone = "Asia/Tokyo"',
        ),
        (Rule("runtime", window=WHOLE_SUNDAY), '[runtime] deny = true, days = ["sun"], zone = "Asia/Tokyo"'),
        (Rule("runtime", connections=["a"]), '[runtime] deny = true, connections = ["a"]'),
    ],
)
def test_a_rule_is_worded_as_in_a_file(rule, text):
    assert str(rule) == text


MISTAKES = [
    ({"modle": {}}, "there is no section 'modle'", "did you mean 'model'?"),
    ({"default": "denied"}, "there is no default 'denied'", "did you mean 'deny'?"),
    ({"global": {"deny": ["frob"]}}, "there is no operation 'frob'", "choose from create"),
    ({"global": {"deny": ["delte"]}}, "there is no operation 'delte'", "did you mean 'delete'?"),
    ({"global": {"default": "deny"}}, "default stands at the top", "move it"),
    ({"global": {"denny": True}}, "there is no key 'denny'", "did you mean 'deny'?"),
    ({"global": {}, "model": {"User": {"message": "no"}}}, "says neither deny nor allow", "for example"),
    ({"global": {"deny": 1}}, "deny takes a list", "for example"),
    ({"global": {"deny": []}}, "names no operation", "write 'all'"),
    ({"global": {"deny": True, "models": ["A"]}}, "about all models", "level model"),
    ({"global": {"deny": True, "connections": ["A"]}}, "about all connections", "level connection"),
    ({"global": "deny"}, "global is no table", "[global]"),
    ({"model": {"deny": ["delete"]}}, "model.deny is no table", "[model.NAME]"),
    ({"model": ["User"]}, "model takes tables", "[model.NAME]"),
    ({"model": {"User": {"deny": True, "models": ["B"]}}}, "stands in the name", "leave models out"),
    ({"field": {"User": {"deny": ["update"]}}}, "field.User.deny is no table", "[field.User.NAME]"),
    ({"field": {"User": True}}, "field.User is no table", "[field.MODEL.FIELD]"),
    ({"model": {"User": {"deny": True, "days": ["sun"]}}}, "days belongs to the level runtime", "[runtime]"),
    ({"runtime": {"deny": True, "days": ["sunday"]}}, "there is no day 'sunday'", "did you mean 'sun'?"),
    ({"runtime": {"deny": True, "from": "25:00"}}, "from takes a time of day", '"22:00"'),
    ({"runtime": {"deny": True, "from": "05:00", "until": "05:00"}}, "begins and ends at the same", "whole days"),
    ({"runtime": {"deny": True, "zone": "Europe/Berln"}}, "there is no time zone", "Europe/Berlin"),
    ({"operation": {"allow": ["delete"], "max_rows": 5}}, "max_rows limits a deny", "bulk_delete"),
    ({"operation": {"deny": True, "max_rows": 5}}, "max_rows limits a deny", "bulk_delete"),
    ({"operation": {"deny": ["delete"], "max_rows": "5"}}, "max_rows takes a whole number", "1000"),
    ({"operation": {"deny": ["delete"], "message": 5}}, "message takes a text", "for example"),
    ({"rule": [{"effect": "deny"}]}, "says no level", "global"),
    ({"rule": [{"level": "table"}]}, "there is no level 'table'", "choose from"),
    ({"rule": [{"level": "model"}]}, "names no models", "give it models"),
    ({"rule": [{"level": "model", "models": ["A"], "fields": ["b"]}]}, "fields belong to rules of the level", ""),
    ({"rule": [{"level": "global", "effect": "forbid"}]}, "there is no effect 'forbid'", "choose from"),
    ({"rule": [{"level": "global", "model": "A"}]}, "there is no key 'model'", "did you mean 'models'?"),
]


@pytest.mark.parametrize(("document", "message", "hint"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_word_that_is_not_known_is_refused_with_a_suggestion(document, message, hint):
    with pytest.raises(ConfigurationError) as caught:
        Protection.from_dict(document)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.code == "bad-policy"
    with pytest.raises(ConfigurationError):
        DataFlow(":memory:", protection=document)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        DataFlow(":memory:", protection=tmp_path / "none.toml")
    assert caught.value.where == {"policy": str(tmp_path / "none.toml")}
    (tmp_path / "bad.toml").write_text("deny = [")
    with pytest.raises(ConfigurationError, match="is no TOML"):
        Protection.from_toml(tmp_path / "bad.toml")
    with pytest.raises(ConfigurationError, match="takes a Protection, a dict or the path"):
        DataFlow(":memory:", protection=7)
    with pytest.raises(ConfigurationError, match="a text that is not empty"):
        Protection().freeze(" ")


def test_models_and_fields_that_do_not_exist_are_found():
    policy = {"field": {"Invoice": {"totl": {"deny": True}}}, "model": {"Usr": {"deny": True}}}
    policy |= {"connection": {"bookz": {"deny": True}, "mars": {"deny": True}}}
    with DataFlow(":memory:", name="books", protection=policy) as db:

        @db.model
        class User:
            name: str

        with pytest.raises(ConfigurationError, match="model Invoice has no field 'totl'") as caught:

            @db.model
            class Invoice:
                total: int

        assert "did you mean 'total'?" in caught.value.hint
        found = db.health()["checks"]["protection"]
    assert not found["ok"]
    assert "no model 'Usr' is registered; did you mean 'User'?" in found["error"]
    assert "no instance answers to 'bookz'; did you mean 'books'?" in found["error"]
    assert found["elsewhere"] == ["bookz", "mars"]
