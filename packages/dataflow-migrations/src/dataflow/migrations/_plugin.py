"""The entry point: what this package offers. Its parts are imported when a schema is looked at."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dataflow.plugins import CommandSpec, MigrationEngineSpec, SettingSpec, hookimpl

if TYPE_CHECKING:
    from dataflow.config import Config
    from dataflow.model import ModelDraft
    from dataflow.plugins.specs import Feature
    from dataflow.types import FieldType

dataflow_api = "1.0"


@hookimpl
def dataflow_settings() -> Iterable[SettingSpec]:
    """Declare how patient migrations are, and the option that names a table's old name."""
    return [
        SettingSpec("migration_lock_timeout", float, 2.0, "Seconds a step waits for a table's lock.", minimum=0.01),
        SettingSpec("migration_patience", float, 60.0, "Seconds a step is tried again that got no lock.", minimum=0),
        SettingSpec("migration_wait", float, 300.0, "Seconds to wait for another process that migrates.", minimum=0),
        SettingSpec(
            "migration_statement_timeout", float, 0.0, "Seconds a statement of a migration may run; 0 for no limit.",
            minimum=0,
        ),
        SettingSpec("renamed_from", str, None, "Name of the table before, so that it is renamed.", scope="model"),
        SettingSpec("given", object, (), "Fields that the database fills where no value is given.", scope="model"),
        SettingSpec("computed", object, (), "Fields that the database alone sets.", scope="model"),
    ]  # fmt: skip


@hookimpl
def dataflow_resolve_annotation(annotation: Any, model_name: str) -> "FieldType | None":
    """Know the field types of existing tables."""
    del model_name
    from dataflow.migrations.existing import resolve

    return resolve(annotation)


@hookimpl
def dataflow_features(model: "ModelDraft", config: "Config") -> "Iterable[Feature] | None":
    """Mark the fields that the database fills."""
    del config
    if not (model.options.get("given") or model.options.get("computed")):
        return None
    from dataflow.migrations.existing import Existing

    return [Existing()]


@hookimpl
def dataflow_migration_engines() -> Iterable[MigrationEngineSpec]:
    """Let schemas follow the models."""
    text = "Compares models with the database, plans, and carries plans out."
    return [MigrationEngineSpec("schema", "dataflow.migrations.engine:SchemaEngine", text)]


@hookimpl
def dataflow_commands() -> Iterable[CommandSpec]:
    """Offer the command for schemas."""
    text = "Plan, apply and undo changes of the schema."
    return [CommandSpec("migrate", text, "dataflow.migrations.cli:migrate")]
