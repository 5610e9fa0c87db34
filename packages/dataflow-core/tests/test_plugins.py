"""Plugins passed as objects: how they are checked, what each hook does, and who wins where two meet.

Real distributions, found by entry point, and features that edit plans: see ``tests/plugins`` at the root.
"""

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from types import ModuleType
from typing import Any, Generic, TypeVar, get_args, get_origin

import attrs
import pytest

from dataflow import DataFlow
from dataflow.config import CORE_SETTINGS, ELSEWHERE, parse_url
from dataflow.errors import (
    ConfigurationError,
    DataFlowError,
    InputError,
    MissingCapability,
    ModelError,
    PluginConflictError,
    PluginError,
    PluginLoadError,
    UsageError,
)
from dataflow.model import FEATURE_OPTIONS
from dataflow.nodes import BaseDataFlowNode
from dataflow.plan.operation import ModelOperation
from dataflow.plan.stages import Stage, ordered
from dataflow.plugins import (
    BackendSpec,
    CommandSpec,
    DialectSpec,
    FieldTypeSpec,
    HealthCheck,
    MigrationEngineSpec,
    NodeSpec,
    Parameter,
    RuntimeSpec,
    SchemaRuleSpec,
    SettingSpec,
    hints,
    hookimpl,
)
from dataflow.plugins.manager import HOOKS, PluginSet, plugin_set
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime, get
from dataflow.sqlite.dialect import SQLite
from dataflow.types import StrType, ValueRefused


def plugin(name: str, **hooks: Any) -> ModuleType:
    """Make a plugin of functions, named after the hooks they implement."""
    module = ModuleType(name)
    module.dataflow_api = "1.0"
    for hook, function in hooks.items():
        setattr(module, hook, hookimpl(function))
    return module


class Feature:
    """A feature that changes nothing."""

    stage = Stage.EXECUTE
    before = after = ()
    capability = ""

    def __init__(self, name="quiet", **attributes):
        self.name = name
        vars(self).update(attributes)

    def extend_model(self, draft):
        pass

    def extend_plan(self, plan):
        pass


def one_model(db):
    @db.model
    class Note:
        text: str = ""

    return db


def state_of(plugins, name):
    return next(info.state for info in plugins.infos if info.name == name)


# -- what is refused when plugins load --------------------------------------------------------------------------------
def no_settings():
    return []


def misspelt():
    return plugin("typo", dataflow_setings=no_settings)


def misspelt_prefix():
    return plugin("typo", datalfow_settings=no_settings)


def unmarked():
    def dataflow_settings():
        return []

    module = plugin("plain")
    module.dataflow_settings = dataflow_settings
    return module


def wrong_argument():
    return plugin("curious", dataflow_features=lambda model, settings: None)


def too_new():
    module = plugin("modern")
    module.dataflow_api = "1.7"
    return module


def too_old():
    module = plugin("ancient")
    module.dataflow_api = "0.9"
    return module


def without_version():
    module = plugin("nameless")
    del module.dataflow_api
    return module


def wrapper():
    @hookimpl(wrapper=True)
    def dataflow_settings():
        return (yield)

    module = plugin("onion")
    module.dataflow_settings = dataflow_settings
    return module


def renamed_hook():
    @hookimpl(specname="dataflow_setting")
    def settings():
        return []

    module = plugin("alias")
    module.settings = settings
    return module


@attrs.define
class Unhashable:
    dataflow_api = "1.0"


FAULTS = {
    misspelt: ("plugin 'typo' .* implements dataflow_setings, which is not a hook", "did you mean dataflow_settings?"),
    misspelt_prefix: ("implements datalfow_settings, which is not a hook", "did you mean dataflow_settings?"),
    unmarked: ("function dataflow_settings without @hookimpl", "from dataflow.plugins import hookimpl"),
    wrong_argument: ("plugin 'curious' .* misuses a hook: .*settings.*not be found in the hookspec", "hookspecs"),
    too_new: ("plugin 'modern' .* needs plugin API 1.7; this .* has 1.0", "upgrade workflow-dataflow-core"),
    too_old: ("plugin 'ancient' .* needs plugin API 0.9; this .* has 1.0", "upgrade the plugin"),
    without_version: ("plugin 'nameless' .* does not state the plugin API", 'add dataflow_api = "1.0"'),
    wrapper: ("plugin 'onion' .* wraps dataflow_settings", "return descriptors of its own"),
    renamed_hook: ("plugin 'alias' .* implements dataflow_setting, which is not a hook", "dataflow_settings"),
    Unhashable: ("plugin 'Unhashable' .* is not hashable", "without __eq__"),
}


@pytest.mark.parametrize("make", FAULTS, ids=lambda make: make.__name__)
def test_a_faulty_plugin_is_refused_with_the_way_to_do_without_it(make):
    with pytest.raises(PluginLoadError) as caught:
        DataFlow(":memory:", plugins=[make()])
    message, hint = FAULTS[make]
    assert caught.match(message)
    assert hint in caught.value.hint
    assert caught.value.hint.endswith("leave it out of DataFlow(plugins=[…])")


@pytest.mark.parametrize("make", FAULTS, ids=lambda make: make.__name__)
def test_a_tolerant_plugin_set_collects_the_fault_and_keeps_the_other_plugins(make):
    bad = make()
    setting = SettingSpec("colour", str, "blue")
    plugins = PluginSet(
        [bad, plugin("zebra", dataflow_settings=lambda: [setting])],
        disabled=frozenset({"enterprise", "migrations"}),
        strict=False,
    )
    (broken,) = [info for info in plugins.infos if info.state == "broken"]
    assert broken.reason.startswith(f"plugin {broken.name!r}")
    assert "(fix: " in broken.reason
    assert not plugins.pm.has_plugin(broken.name)
    assert plugins.settings["instance", "colour"] is setting
    assert plugins.collect("dataflow_features", model=None, config=None) == []


def test_an_object_whose_class_has_marked_methods_is_a_plugin():
    class Colours:
        dataflow_api = "1.0"

        @hookimpl
        def dataflow_settings(self):
            return [SettingSpec("colour", str, "blue")]

    plugins = PluginSet([Colours()])
    (info,) = [info for info in plugins.infos if info.name == "Colours"]
    assert info == attrs.evolve(info, state="active", distribution="", hooks=("dataflow_settings",))
    with DataFlow(":memory:", plugins=[Colours()], colour="red") as db:
        assert db.config["colour"] == "red"


def test_a_marked_function_may_have_another_name_than_its_hook():
    @hookimpl(specname="dataflow_settings")
    def my_settings():
        return [SettingSpec("colour", str, "blue")]

    module = plugin("alias")
    module.my_settings = my_settings
    plugins = PluginSet([module])
    assert ("instance", "colour") in plugins.settings
    assert next(info.hooks for info in plugins.infos if info.name == "alias") == ("dataflow_settings",)


# -- allowed, disabled, ordered ---------------------------------------------------------------------------------------
def test_a_disabled_plugin_is_listed_and_does_nothing():
    paint = plugin("paint", dataflow_settings=lambda: [SettingSpec("colour", str)])
    plugins = PluginSet([paint], disabled=frozenset({"paint"}))
    assert state_of(plugins, "paint") == "disabled"
    assert ("instance", "colour") not in plugins.settings


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_without_its_dialect_an_installed_database_is_a_missing_capability(monkeypatch, how):
    options = {}
    if how == "argument":
        options = {"disable": {"sqlite"}}
    else:
        monkeypatch.setenv("DATAFLOW_DISABLE_PLUGINS", " sqlite ,")
    with pytest.raises(MissingCapability, match=r"no active plugin handles sqlite:// URLs") as caught:
        DataFlow(":memory:", **options)
    assert "workflow-dataflow[sqlite]" in caught.value.hint


def test_an_allow_list_lets_in_only_the_plugins_it_names(monkeypatch):
    monkeypatch.setenv("DATAFLOW_PLUGINS", "")
    with pytest.raises(MissingCapability):
        DataFlow(":memory:")
    monkeypatch.setenv("DATAFLOW_PLUGINS", "sqlite")
    DataFlow(":memory:").close()
    assert state_of(plugin_set(), "core") == state_of(plugin_set(), "sqlite") == "active"


@pytest.mark.parametrize(
    ("variable", "value"), [("DATAFLOW_PLUGINS", "sqlite,sqlight"), ("DATAFLOW_DISABLE_PLUGINS", "sqlight")]
)
def test_a_name_that_no_plugin_has_is_an_error_with_a_suggestion(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match="no installed plugin is called 'sqlight'") as caught:
        DataFlow(":memory:")
    assert caught.value.hint == "did you mean 'sqlite'?"


def test_a_tolerant_plugin_set_lists_a_name_that_no_plugin_has():
    plugins = PluginSet(disabled=frozenset({"sqlight"}), strict=False)
    assert [info.reason for info in plugins.infos if info.state == "broken"] == [
        "no installed plugin is called 'sqlight' (fix: did you mean 'sqlite'?)"
    ]
    assert "sqlite" in plugins.dialects


def test_the_plugin_of_core_cannot_be_disabled():
    with pytest.raises(ConfigurationError, match="core's own plugin is always active"):
        DataFlow(":memory:", disable={"core"})


def test_plugins_are_asked_in_the_order_of_their_names_however_they_are_passed():
    named = [plugin(name, dataflow_configure=lambda config: None) for name in "bcad"]
    asked = []
    for module in named:
        module.dataflow_configure = hookimpl(lambda config, name=module.__name__: asked.append(name))
    for order in (named, named[::-1]):
        asked.clear()
        DataFlow(":memory:", plugins=order).close()
        assert asked == ["a", "b", "c", "d"]


def test_a_plugin_that_is_passed_takes_its_place_among_the_others_by_name():
    early = plugin(
        "apple", dataflow_nodes=lambda model: [NodeSpec(f"{model.name}AppleNode", "apple", "x:Y", model.name)]
    )
    late = plugin(
        "zebra", dataflow_nodes=lambda model: [NodeSpec(f"{model.name}ZebraNode", "zebra", "x:Y", model.name)]
    )
    with DataFlow(":memory:", plugins=[late, early]) as db:
        names = list(one_model(db).core.node_types)
    assert (names[0], names[-1]) == ("NoteAppleNode", "NoteZebraNode")


# -- conflicts --------------------------------------------------------------------------------------------------------
def twice(hook, *answers):
    """Two plugins that answer one hook."""
    answers = answers if len(answers) > 1 else answers * 2
    return [plugin(name, **{hook: answer}) for name, answer in zip(("left", "right"), answers, strict=True)]


CONFLICTS = {
    "setting 'colour'": twice("dataflow_settings", lambda: [SettingSpec("colour", str)]),
    "model option 'colour'": twice("dataflow_settings", lambda: [SettingSpec("colour", str, scope="model")]),
    "dialect 'tin'": twice(
        "dataflow_dialects", lambda: [DialectSpec("tin", ("a",), "x:Y")], lambda: [DialectSpec("tin", ("b",), "x:Y")]
    ),
    "URL scheme 'tin'": twice(
        "dataflow_dialects",
        lambda: [DialectSpec("one", ("tin", "one"), "x:Y")],
        lambda: [DialectSpec("two", ("two", "tin"), "x:Y")],
    ),
    "field type for IPv4Address": twice(
        "dataflow_field_types", lambda: [FieldTypeSpec("IP", "ipaddress:IPv4Address", StrType)]
    ),
    "node type 'MailNode'": twice("dataflow_workflow_nodes", lambda: [NodeSpec("MailNode", "mail", "x:Y")]),
    "runtime 'durable'": twice("dataflow_runtimes", lambda: [RuntimeSpec("durable", "x:Y")]),
    "migration engine for 'risk'": twice("dataflow_migration_engines", lambda: [MigrationEngineSpec("risk", "x:Y")]),
    "cache backend for tin://": twice("dataflow_backends", lambda: [BackendSpec("cache", "tin", "x:Y")]),
    "command 'paint'": twice("dataflow_commands", lambda: [CommandSpec("paint", "Paint.", "x:Y")]),
    "health check 'queue'": twice("dataflow_health", lambda: [HealthCheck("queue", asyncio.sleep)]),
    "schema rule 'strict'": twice("dataflow_schema_rules", lambda: [SchemaRuleSpec("strict", "lint", "x:Y")]),
}


LISTS = (
    "settings",
    "dialects",
    "field_types",
    "workflow_nodes",
    "runtimes",
    "migration_engines",
    "backends",
    "commands",
)


def ask_for_all(plugins):
    for name in LISTS:
        getattr(plugins, name)
    plugins.health_checks(db=None)
    plugins.schema_rules("sqlite")


@pytest.mark.parametrize("what", CONFLICTS)
def test_what_two_plugins_provide_names_both(what):
    plugins = PluginSet(CONFLICTS[what], disabled=frozenset({"enterprise"}))
    with pytest.raises(PluginConflictError) as caught:
        ask_for_all(plugins)
    source = "an object passed as plugin"
    assert caught.value.message == f"the {what} is provided twice: by 'left' ({source}) and 'right' ({source})"


def test_what_core_provides_cannot_be_taken_over():
    greedy = plugin("greedy", dataflow_settings=lambda: [SettingSpec("echo", bool, True)])
    with pytest.raises(PluginConflictError, match=r"by 'core' .* and 'greedy'") as caught:
        DataFlow(":memory:", plugins=[greedy])
    assert "leave it out" in caught.value.hint


def test_one_plugin_that_provides_the_same_twice_is_blamed_alone():
    echo = plugin("stutter", dataflow_settings=lambda: [SettingSpec("colour", str)] * 2)
    with pytest.raises(PluginConflictError, match="'colour' is provided twice by 'stutter'"):
        DataFlow(":memory:", plugins=[echo])


def test_two_plugins_of_one_name_conflict():
    with pytest.raises(PluginConflictError, match="two plugins are called 'paint'"):
        DataFlow(":memory:", plugins=[plugin("paint"), plugin("paint")])


def test_a_plugin_called_as_an_installed_one_conflicts_with_it():
    with pytest.raises(PluginConflictError, match=r"two plugins are called 'sqlite': from .* and from .*") as caught:
        DataFlow(":memory:", plugins=[plugin("sqlite")])
    assert "workflow-dataflow-sqlite" in caught.value.message


def test_an_installed_plugin_passed_once_more_conflicts_with_itself():
    from dataflow.sqlite import _plugin

    with pytest.raises(PluginConflictError, match=r"'dataflow\.sqlite\._plugin' .* is active already, as 'sqlite'"):
        DataFlow(":memory:", plugins=[_plugin])


class Loud(ModelOperation):
    name = "read"


@pytest.mark.parametrize(
    ("node", "what"),
    [
        (NodeSpec("NoteCreateNode", "shout", Loud, "Note"), "node type 'NoteCreateNode'"),
        (NodeSpec("NoteShoutNode", "create", Loud, "Note"), "operation 'create' of Note"),
    ],
)
def test_a_node_of_a_model_that_exists_already_is_refused_and_the_model_is_not_registered(node, what):
    with DataFlow(":memory:", plugins=[plugin("shouting", dataflow_nodes=lambda model: [node])]) as db:
        with pytest.raises(PluginConflictError, match=f"{what} is provided twice: by 'core' .* and 'shouting'"):
            one_model(db)
        assert db.list_models() == []
        assert "NoteReadNode" not in db.core.node_types


def test_a_node_of_a_model_called_as_a_node_of_none_is_refused():
    mail = plugin(
        "mail",
        dataflow_workflow_nodes=lambda: [NodeSpec("NoteMailNode", "mail", "x:Y")],
        dataflow_nodes=lambda model: [NodeSpec("NoteMailNode", "mail", "x:Y", model.name)],
    )
    with (
        DataFlow(":memory:", plugins=[mail]) as db,
        pytest.raises(ModelError, match="'NoteMailNode', which exists already"),
    ):
        one_model(db)


def test_two_features_of_one_name_on_a_model_conflict_whichever_hooks_they_come_from():
    pair = [
        plugin("left", dataflow_audit=lambda model: [Feature("log")]),
        plugin("right", dataflow_features=lambda model: [Feature("log")]),
    ]
    with (
        DataFlow(":memory:", plugins=pair) as db,
        pytest.raises(PluginConflictError, match="the feature 'log' of model Note is provided twice: by 'left'"),
    ):
        one_model(db)


# -- plugins that misbehave when they are asked -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (lambda: SettingSpec("colour", str), "returned one, not a list of them"),
        (lambda: ["colour"], "returned str, not SettingSpec"),
        (lambda: 1 / 0, "fails in dataflow_settings: ZeroDivisionError"),
        (lambda: (SettingSpec(str(1 // n), int) for n in (1, 0)), "fails in dataflow_settings: ZeroDivisionError"),
        (lambda: 7, "fails in dataflow_settings: TypeError"),
    ],
    ids=["single", "text", "raises", "raises-midway", "number"],
)
def test_a_plugin_that_fails_in_a_hook_is_named(answer, fault):
    with pytest.raises(PluginError, match=f"plugin 'shaky' .* {fault}") as caught:
        DataFlow(":memory:", plugins=[plugin("shaky", dataflow_settings=answer)])
    assert caught.value.code == "plugin-failed"
    assert "leave it out of DataFlow(plugins=[…])" in caught.value.hint


def test_what_is_no_feature_is_refused_with_what_it_lacks():
    half = plugin("half", dataflow_tenancy=lambda model: object())
    with (
        DataFlow(":memory:", plugins=[half]) as db,
        pytest.raises(PluginError, match="object, which is no Feature") as e,
    ):
        one_model(db)
    assert "capability" in e.value.message


def test_a_reference_that_leads_nowhere_is_a_load_error_that_names_it():
    lost = plugin("lost", dataflow_dialects=lambda: [DialectSpec("lost", ("lost",), "dataflow.nowhere:Lost")])
    with pytest.raises(PluginLoadError, match=r"'dataflow\.nowhere:Lost' cannot be loaded"):
        DataFlow("lost://host/db", plugins=[lost])


# -- each hook does what it says --------------------------------------------------------------------------------------
def test_settings_are_read_from_keyword_environment_and_default(monkeypatch):
    spec = SettingSpec("loudness", int, 3, "Of shouts, in dB.", minimum=1)
    loud = plugin("loud", dataflow_settings=lambda: [spec])
    with DataFlow(":memory:", plugins=[loud]) as db:
        assert db.config["loudness"] == 3
    monkeypatch.setenv("DATAFLOW_LOUDNESS", "5")
    with DataFlow(":memory:", plugins=[loud]) as db:
        assert db.config["loudness"] == 5
    with DataFlow(":memory:", plugins=[loud], loudness=7) as db:
        assert db.config["loudness"] == 7
    with pytest.raises(ConfigurationError, match="at least 1"):
        DataFlow(":memory:", plugins=[loud], loudness=0)
    with pytest.raises(ConfigurationError, match="takes int, got bool"):
        DataFlow(":memory:", plugins=[loud], loudness=False)
    with pytest.raises(ConfigurationError, match="there is no setting 'loudness'"):
        DataFlow(":memory:", loudness=7)


def test_a_model_option_exists_only_with_its_plugin_and_has_a_type():
    slugs = plugin("slugs", dataflow_settings=lambda: [SettingSpec("slug", str, "", scope="model")])

    def register(db, value):
        @db.model
        class Note:
            text: str
            __dataflow__ = {"slug": value}  # noqa: RUF012

    with DataFlow(":memory:", plugins=[slugs]) as db:
        register(db, "text")
        assert db.get_spec("Note").options == {"slug": "text"}
    with DataFlow(":memory:", plugins=[slugs]) as db, pytest.raises(ModelError, match="'slug' takes str, got int"):
        register(db, 7)
    with DataFlow(":memory:") as db, pytest.raises(ModelError, match="no model option 'slug'"):
        register(db, "text")


def test_configure_may_refuse_the_finished_settings():
    def dataflow_configure(config):
        if config["echo"]:
            raise ConfigurationError("quiet, please", hint="leave echo out")

    calm = plugin("calm", dataflow_configure=dataflow_configure)
    with pytest.raises(ConfigurationError, match="quiet, please"):
        DataFlow(":memory:", plugins=[calm], echo=True)
    DataFlow(":memory:", plugins=[calm]).close()


class Tin(SQLite):
    """A stranger's dialect: SQLite in memory, whatever the path, with texts in capitals."""

    name = "tin"

    def connect(self, url, config):
        return super().connect(parse_url(":memory:"), config)

    def encoder(self, field):
        return str.upper if isinstance(field, StrType) else super().encoder(field)


def test_a_strangers_dialect_answers_to_its_scheme():
    spec = DialectSpec("tin", ("tin", "tin+can"), Tin, {"json": "unsupported: tin does not bend"})
    tin = plugin("tin", dataflow_dialects=lambda: [spec])
    for url in ("tin://host/db", "tin+can://host/db"):
        with DataFlow(url, plugins=[tin]) as db:
            one_model(db)
            assert db.express_sync.create("Note", {"text": "soup"})["text"] == "SOUP"
            assert db.express_sync.count("Note", {"text": "soup"}) == {"count": 1}
            assert db.core.dialect.capabilities["json"].startswith("unsupported")
    with pytest.raises(MissingCapability, match="no dialect is known for tin://"):
        DataFlow("tin://host/db")


class AddressType(StrType):
    name = "address"

    def accept(self, value):
        if not isinstance(value, IPv4Address):
            raise ValueRefused("expected IPv4Address", "ipaddress.ip_address(…)")
        return str(value)

    def restore(self):
        return IPv4Address


def test_a_field_type_serves_its_annotation_in_every_direction():
    addresses = plugin(
        "addresses", dataflow_field_types=lambda: [FieldTypeSpec("IP", "ipaddress:IPv4Address", AddressType)]
    )
    here, there = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
    with DataFlow(":memory:", plugins=[addresses]) as db:

        @db.model
        class Host:
            address: IPv4Address
            others: list[IPv4Address] = []  # noqa: RUF012

        call = db.express_sync
        assert call.create("Host", {"address": here, "others": [there]})["address"] == here
        call.bulk_create("Host", [{"address": there}])
        found = call.list("Host", {"address": {"$in": [here]}})["records"]
        assert [(host["address"], host["others"]) for host in found] == [(here, [there])]
        with pytest.raises(InputError, match="expected IPv4Address"):
            call.create("Host", {"address": "10.0.0.3"})
    with DataFlow(":memory:") as db, pytest.raises(ModelError, match="IPv4Address is not a field type"):

        @db.model
        class Host2:
            address: IPv4Address


T = TypeVar("T")


class Shelf(Generic[T]):
    pass


@attrs.frozen
class ShelfType(StrType):
    owner: str


def test_the_first_plugin_by_name_that_resolves_an_annotation_wins():
    asked = []

    def resolver(owner, answers):
        def resolve(annotation, model_name):
            if get_origin(annotation) is Shelf:
                asked.append((owner, get_args(annotation), model_name))
                return ShelfType(owner) if answers else None
            return None

        return plugin(owner, dataflow_resolve_annotation=resolve)

    with DataFlow(":memory:", plugins=[resolver("c", True), resolver("a", False), resolver("b", True)]) as db:

        @db.model
        class Book:
            place: Shelf[int]
            title: str

        assert db.get_spec("Book").fields["place"].type.owner == "b"
    assert asked == [("a", (int,), "Book"), ("b", (int,), "Book")]


def without_enterprise(**options):
    """Open a DataFlow to which no installed plugin provides a feature."""
    return DataFlow(":memory:", disable={"enterprise"}, **options)


SINGLE = {
    "dataflow_tenancy": "multi_tenant",
    "dataflow_soft_delete": "soft_delete",
    "dataflow_versioning": "versioned",
}


def offer(name, hook, feature):
    return plugin(name, **{hook: lambda model, config: feature if model.options else None})


def demanding(db, option):
    @db.model
    class Note:
        text: str
        __dataflow__ = {option: True}  # noqa: RUF012

    return Note


@pytest.mark.parametrize("hook", SINGLE)
def test_a_demanded_feature_comes_from_exactly_one_plugin(hook):
    option = SINGLE[hook]
    with without_enterprise(plugins=[offer("left", hook, Feature("mine"))]) as db:
        demanding(db, option)
        assert [feature.name for feature in db.core.models["Note"].features] == ["mine"]
    both = [offer("left", hook, Feature("mine")), offer("right", hook, Feature("yours"))]
    with without_enterprise(plugins=both) as db:
        with pytest.raises(
            PluginConflictError, match=f"{option} of model Note is provided twice: by 'left' .* 'right'"
        ):
            demanding(db, option)
        assert db.list_models() == []


def test_an_audit_may_come_from_several_plugins():
    pair = [offer(name, "dataflow_audit", [Feature(name)]) for name in ("zeal", "care")]
    with without_enterprise(plugins=pair) as db:
        demanding(db, "audit_log")
        assert [feature.name for feature in db.core.models["Note"].features] == ["care", "zeal"]


@pytest.mark.parametrize("option", FEATURE_OPTIONS)
def test_a_demanded_feature_that_no_plugin_provides_is_refused_with_the_line_to_install_it(option):
    with without_enterprise(plugins=[offer("shy", FEATURE_OPTIONS[option], None)]) as db:
        with pytest.raises(MissingCapability, match=f"asks for {option}, which no active plugin provides") as caught:
            demanding(db, option)
        assert "pip install 'workflow-dataflow[enterprise]'" in caught.value.hint
        assert caught.value.where["model"] == "Note"
        assert db.list_models() == []


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
@pytest.mark.parametrize("how", ["keyword", "environment"])
def test_a_setting_of_a_package_that_is_not_installed_is_refused_with_the_line_to_install_it(monkeypatch, name, how):
    options = {name: True}
    if how == "environment":
        options = {}
        monkeypatch.setenv(f"DATAFLOW_{name.upper()}", "true")
    with pytest.raises(MissingCapability, match=name) as caught:
        without_enterprise(**options)
    assert "pip install 'workflow-dataflow[enterprise]'" in caught.value.hint


def test_a_setting_of_another_package_that_is_off_in_the_environment_asks_for_nothing(monkeypatch):
    monkeypatch.setenv("DATAFLOW_MULTI_TENANT", "false")
    without_enterprise().close()


def test_a_plugin_that_declares_such_a_setting_makes_it_available(monkeypatch):
    tenants = plugin(
        "tenants",
        dataflow_settings=lambda: [SettingSpec("multi_tenant", bool, False), SettingSpec("cache_ttl", int, 300)],
    )
    monkeypatch.setenv("DATAFLOW_CACHE_TTL", "17")
    with without_enterprise(plugins=[tenants], multi_tenant=True) as db:
        assert (db.config["multi_tenant"], db.config["cache_ttl"]) == (True, 17)


class Shout:
    """An operation of a plugin's own: change texts to capitals, in SQL of core's making."""

    name = "shout"
    writes = True

    def __init__(self, bound):
        self.bound = bound

    def check(self, params, *, partial):
        return []

    def missing(self, names):
        return [] if "id" in names else ["id"]

    def program(self, params, call):
        read = yield from self.bound.operation("read").program({"id": params["id"]}, call)
        changed = {"id": params["id"], "text": read["text"].upper()}
        return (yield from self.bound.operation("update").program(changed, call))


def test_a_node_type_of_a_model_works_in_workflows_and_express():
    def dataflow_nodes(model, config):
        inputs = (Parameter("id", "int", required=True),)
        return [NodeSpec(f"{model.name}ShoutNode", "shout", Shout, model.name, inputs, ("text",), writes=True)]

    with DataFlow(":memory:", plugins=[plugin("shouting", dataflow_nodes=dataflow_nodes)]) as db:
        one_model(db)
        workflow = db.workflow()
        workflow.add_node("NoteCreateNode", "note", {"text": "ahoy"}).add_node("NoteShoutNode", "shout")
        workflow.add_connection("note", "id", "shout", "id")
        results, _ = LocalRuntime().execute(workflow.build())
        assert results["shout"]["text"] == "AHOY"
        assert db.express_sync.call("shout", "Note", id=1)["text"] == "AHOY"


class MailNode(BaseDataFlowNode):
    outputs = ("sent",)

    def run(self, to):
        return {"sent": f"to {to}"}


def test_a_node_type_without_model_works_in_bound_and_unbound_builders():
    from dataflow.workflow import WorkflowBuilder

    mail = plugin("mail", dataflow_workflow_nodes=lambda: [NodeSpec("MailNode", "mail", MailNode)])
    with DataFlow(":memory:", name="plain"), DataFlow(":memory:", plugins=[mail]) as db:
        for builder in (db.workflow(), WorkflowBuilder()):
            results, _ = LocalRuntime().execute(
                builder.add_node("MailNode", "mail", {}).build(), {"mail": {"to": "Ada"}}
            )
            assert results["mail"]["sent"] == "to Ada"


class Slow(LocalRuntime):
    pass


def test_a_runtime_is_found_by_its_name():
    assert get("local") is LocalRuntime
    assert get("async") is AsyncLocalRuntime
    slow = plugin("slow", dataflow_runtimes=lambda: [RuntimeSpec("slow", Slow)])
    with DataFlow(":memory:", plugins=[slow]) as db:
        assert get("slow", db) is Slow
    with pytest.raises(MissingCapability, match="no active plugin provides a runtime 'slow'"):
        get("slow")
    with pytest.raises(MissingCapability) as caught:
        get("locla")
    assert caught.value.hint == "did you mean 'local'?"


class Engine:
    def __init__(self, core):
        self.core = core

    async def auto_migrate(self, *, dry_run):
        return True, [f"{self.core.config.url.scheme} {dry_run}"]

    def register_schema_as_models(self, tables):
        return {"generated_nodes": {table: {} for table in tables}}

    def reconstruct_models_from_registry(self):
        return {"reconstructed": 0}


def test_a_migration_engine_serves_the_calls_of_its_role():
    engines = plugin("engines", dataflow_migration_engines=lambda: [MigrationEngineSpec("schema", Engine)])
    with DataFlow(":memory:", plugins=[engines], disable={"migrations"}) as db:
        assert asyncio.run(db.auto_migrate(dry_run=True)) == (True, ["sqlite True"])
        assert db.register_schema_as_models(tables=["notes"]) == {"generated_nodes": {"notes": {}}}
        assert db.reconstruct_models_from_registry() == {"reconstructed": 0}
    alone = DataFlow(":memory:", disable={"migrations"})
    with alone as db, pytest.raises(MissingCapability, match="migrations package"):
        asyncio.run(db.auto_migrate(dry_run=True))


def test_schema_rules_are_asked_for_by_dialect():
    def dataflow_schema_rules(dialect):
        return [SchemaRuleSpec(f"{dialect}-strict", "lint", "x:Y")]

    rules = PluginSet([plugin("rules", dataflow_schema_rules=dataflow_schema_rules)]).schema_rules("sqlite")
    assert rules == {"sqlite-strict": SchemaRuleSpec("sqlite-strict", "lint", "x:Y")}


def test_backends_are_found_by_kind_and_scheme():
    tins = plugin(
        "tins", dataflow_backends=lambda: [BackendSpec("cache", "tin", "x:Y"), BackendSpec("blobs", "tin", "x:Z")]
    )
    with DataFlow(":memory:", plugins=[tins]) as db:
        backends = db.core.plugins.backends
    assert {kind: spec.backend for kind, spec in backends.items()} == {("cache", "tin"): "x:Y", ("blobs", "tin"): "x:Z"}


def test_commands_are_known_without_importing_them():
    paint = plugin("paint", dataflow_commands=lambda: [CommandSpec("paint", "Paint it.", "nowhere.cli:paint")])
    commands = PluginSet([paint]).commands
    assert commands["paint"].help == "Paint it."
    assert {"demo", "plugins", "doctor", "models", "nodes", "graph", "run"} < set(commands)


async def check_queue():
    return {"ok": True, "waiting": 3}


async def check_disk():
    return {"ok": False}


async def check_fire():
    raise OSError("smoke")


async def check_nothing():
    return None


def test_health_checks_are_run_and_their_faults_reported():
    def dataflow_health(db):
        checks = (check_queue, check_disk, check_fire, check_nothing)
        return [HealthCheck(check.__name__.removeprefix("check_"), check) for check in checks]

    with DataFlow(":memory:", plugins=[plugin("nurse", dataflow_health=dataflow_health)]) as db:
        health = db.health()
    assert not health["ok"]
    checks = health["checks"]
    assert checks["database"]["ok"]
    assert checks["queue"] == {"ok": True, "waiting": 3}
    assert [name for name, check in checks.items() if not check["ok"]] == ["disk", "fire", "nothing"]
    assert checks["fire"]["error"] == "smoke"


def life(name, log, *, fails=False):
    @asynccontextmanager
    async def alive(db):
        if fails:
            raise OSError(f"{name} does not start")
        log.append(f"{name} starts")
        try:
            yield
        finally:
            tables = await db.express.count("Note")
            log.append(f"{name} stops, {tables['count']} notes")

    return plugin(name, dataflow_lifespan=alive)


async def test_a_lifespan_is_entered_once_by_initialize_and_left_before_the_database_closes():
    log = []
    async with DataFlow(":memory:", plugins=[life("b", log), life("a", log), plugin("idle")]) as db:
        one_model(db)
        await db.initialize()
        await db.express.create("Note", {})
        assert log == ["a starts", "b starts"]
    assert log[2:] == ["b stops, 1 notes", "a stops, 1 notes"]
    await db.aclose()
    assert len(log) == 4


def test_a_lifespan_is_not_entered_by_building_or_using_an_instance():
    log = []
    with DataFlow(":memory:", plugins=[life("a", log)]) as db:
        one_model(db)
        db.express_sync.create("Note", {})
    assert log == []


def test_a_synchronous_close_leaves_lifespans_of_a_loop_that_has_ended():
    log = []
    db = one_model(DataFlow(":memory:", plugins=[life("a", log)]))
    asyncio.run(db.initialize())
    db.close()
    assert log == ["a starts", "a stops, 0 notes"]
    db.close()
    assert len(log) == 2


async def test_a_synchronous_close_in_another_thread_leaves_lifespans_on_their_own_loop():
    loops = []

    @asynccontextmanager
    async def alive(db):
        loops.append(asyncio.get_running_loop())
        yield
        loops.append(asyncio.get_running_loop())

    db = DataFlow(":memory:", plugins=[plugin("alive", dataflow_lifespan=alive)])
    await db.initialize()
    await asyncio.to_thread(db.close)
    assert loops == [asyncio.get_running_loop()] * 2


async def test_a_synchronous_close_on_the_loop_of_a_lifespan_is_refused_with_the_call_to_await():
    log = []
    db = one_model(DataFlow(":memory:", plugins=[life("a", log)]))
    await db.initialize()
    with pytest.raises(UsageError, match=r"close\(\) would stop the event loop") as caught:
        db.close()
    assert "await db.aclose()" in caught.value.hint
    assert (await db.express.count("Note"))["count"] == 0
    await db.aclose()
    assert log == ["a starts", "a stops, 0 notes"]


async def test_a_lifespan_that_fails_to_start_leaves_those_before_it_and_may_be_tried_again():
    log = []
    modules = [life("a", log), life("b", log, fails=True)]
    db = one_model(DataFlow(":memory:", plugins=modules))
    for _ in range(2):
        with pytest.raises(OSError, match="b does not start"):
            await db.initialize()
    assert log == ["a starts", "a stops, 0 notes"] * 2
    await db.aclose()
    assert len(log) == 4


async def test_a_lifespan_that_fails_to_stop_does_not_keep_the_database_open():
    @asynccontextmanager
    async def clumsy(db):
        yield
        raise OSError("stuck")

    db = one_model(DataFlow(":memory:", plugins=[plugin("clumsy", dataflow_lifespan=clumsy)]))
    await db.initialize()
    with pytest.raises(OSError, match="stuck"):
        await db.aclose()
    with pytest.raises(UsageError, match="closed"):
        await db.express.count("Note")


# -- the texts of hints.toml change nothing but texts -----------------------------------------------------------------
def with_model(options):
    def act():
        with without_enterprise() as db:

            @db.model
            class Note:
                text: str
                __dataflow__ = options

            db.express_sync.create("Note", {"text": "hello"})
            db.express_sync.delete("Note", 1, soft_delete=True)

    return act


def without_table():
    with DataFlow(":memory:", auto_migrate=False) as db:
        one_model(db).express_sync.count("Note")


def lacking_a_column(tmp_path):
    url = f"sqlite:///{tmp_path}/app.db"
    with DataFlow(url) as db:
        one_model(db).express_sync.create("Note", {})
    with DataFlow(url, disable={"migrations"}) as db:

        @db.model
        class Note:
            text: str
            more: str

        db.express_sync.count("Note")


def migrating():
    with DataFlow(":memory:", disable={"migrations"}) as db:
        asyncio.run(db.auto_migrate())


def from_environment(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"DATAFLOW_{name.upper()}", "on")
        without_enterprise()


def situations(tmp_path):
    """Everything that can fail for want of a package, or for a name that no package has."""
    for url in ("postgresql://h/d", "postgres://h/d", "postgresql+asyncpg://h/d", "oracle://h/d"):
        yield lambda url=url: DataFlow(url, disable={"postgres"})
    yield lambda: DataFlow(":memory:", disable={"sqlite"})
    for name in sorted({*ELSEWHERE, *_table("setting"), "no_such_setting"}):
        yield lambda name=name: without_enterprise(**{name: True})
        if name in ELSEWHERE:
            yield lambda name=name: from_environment(name)
    for name, package in sorted(_table("unknown_setting").items()):
        url = "sqlite:///none.db" if package == "postgres" else "postgresql://h/d"
        yield lambda name=name, url=url, package=package: DataFlow(url, disable={package}, **{name: True})
    for option in sorted({*FEATURE_OPTIONS, *_table("capability"), "no_such_option"}):
        yield with_model({option: True})
    yield with_model({})
    yield without_table
    yield lambda: lacking_a_column(tmp_path)
    yield migrating


def _table(section):
    return hints._table()[section]


def outcome(act):
    try:
        act()
    except DataFlowError as error:
        return type(error), error.code, error.message, error.hint
    return None


def test_emptying_the_hints_changes_no_class_and_no_code(tmp_path, monkeypatch):
    acts = list(situations(tmp_path))
    (tmp_path / "hints.toml").write_text("")
    before = [outcome(act) for act in acts]
    with monkeypatch.context() as patch:
        patch.setattr("importlib.resources.files", lambda package: tmp_path)
        hints._table.cache_clear()
        after = [outcome(act) for act in acts]
    hints._table.cache_clear()
    assert None not in before
    assert [one[:2] for one in before] == [one[:2] for one in after]
    assert "pip install" in str(before)
    assert "pip install" not in str(after)
    assert all(hint for *_, hint in after)


def test_the_hints_are_not_read_while_nothing_fails(monkeypatch):
    hints._table.cache_clear()
    with DataFlow(":memory:") as db:
        one_model(db).express_sync.create("Note", {})
        LocalRuntime().execute(db.workflow().add_node("NoteListNode", "list").build())
    assert hints._table.cache_info().misses == 0


def test_every_setting_and_capability_of_another_package_has_a_hint():
    assert set(_table("setting")) == set(ELSEWHERE)
    assert set(FEATURE_OPTIONS) <= set(_table("capability"))
    assert not ELSEWHERE & {spec.name for spec in CORE_SETTINGS}


def test_every_setting_of_a_part_has_a_hint_for_those_who_lack_its_package():
    def declared(disabled):
        return {name for scope, name in PluginSet(disabled=disabled).settings if scope == "instance"}

    hinted = {**_table("setting"), **_table("unknown_setting")}
    for package in ("enterprise", "migrations", "postgres", "sqlite"):
        own = declared(frozenset()) - declared(frozenset({package}))
        assert own == {name for name, found in hinted.items() if found == package}


# -- the order of features --------------------------------------------------------------------------------------------
def order(*features):
    return [feature.name for feature in ordered(features, "Note")]


def test_features_run_by_stage_then_by_name():
    late, first, second = Feature("a", stage=Stage.NOTIFY), Feature("b", stage=Stage.SCOPE), Feature("c", stage=20)
    for given in ((late, second, first), (first, late, second)):
        assert order(*given) == ["b", "c", "a"]


def test_before_and_after_put_features_in_order_within_their_stage():
    assert order(Feature("a", after=("c",)), Feature("b"), Feature("c", before=("b",))) == ["c", "a", "b"]


def test_a_wish_about_a_feature_the_model_does_not_have_is_no_wish():
    assert order(Feature("b", after=("zzz",), before=("a0",)), Feature("a")) == ["a", "b"]


def test_features_that_wait_for_each_other_are_an_error_that_names_them():
    cycle = [Feature("hen", after=("egg",)), Feature("egg", after=("hen",)), Feature("nest")]
    farm = plugin("farm", dataflow_features=lambda model: cycle)
    with DataFlow(":memory:", plugins=[farm]) as db:
        with pytest.raises(ModelError, match=r"wait for each other: (hen -> egg -> hen|egg -> hen -> egg)"):
            one_model(db)
        assert db.list_models() == []


def test_the_stages_keep_the_order_that_safety_needs():
    stages = [Stage.AUTHORIZE, Stage.SCOPE, Stage.VERSION, Stage.ENCODE, Stage.EXECUTE, Stage.DECODE, Stage.RECORD]
    assert sorted([*stages, Stage.NOTIFY]) == [*stages, Stage.NOTIFY] == list(Stage)


# -- what it costs ----------------------------------------------------------------------------------------------------
def test_listing_plugins_and_what_they_offer_imports_no_compiler_and_no_driver():
    code = f"""
import sys
from dataflow.plugins.manager import PluginSet
plugins = PluginSet()
for name in {LISTS}:
    getattr(plugins, name)
assert plugins.dialects["sqlite"].name == "sqlite"
assert not plugins.schema_rules("sqlite")
heavy = set("sqlalchemy aiosqlite sqlite3 structlog click rich".split()) & set(sys.modules)
assert not heavy, heavy
print("listed")
"""
    measured = ("DATAFLOW_", "COVERAGE_")  # coverage itself imports sqlite3
    clean = {name: value for name, value in os.environ.items() if not name.startswith(measured)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=clean)
    assert (done.returncode, done.stdout, done.stderr) == (0, "listed\n", "")


def test_every_hook_has_its_place_in_this_list():
    assert len(HOOKS) == len(set(HOOKS)) == 20
