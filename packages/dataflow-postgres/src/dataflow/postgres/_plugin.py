"""The entry point: what this package offers, without importing it."""

from collections.abc import Iterable

from dataflow.plugins import DialectSpec, SettingSpec, hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_dialects() -> Iterable[DialectSpec]:
    """Offer the PostgreSQL dialect."""
    capabilities = {
        "returning": "full",
        "json": "full",
        "arrays": "full",
        "decimal": "full",
        "regex": "emulated: patterns are translated to PostgreSQL's language",
        "isolation": "full",
        "concurrent_writers": "full",
    }
    schemes = ("postgresql", "postgres", "postgresql+asyncpg")
    editor = "dataflow.postgres.migration.editor:PostgresEditor"
    return [DialectSpec("postgresql", schemes, "dataflow.postgres.dialect:PostgreSQL", capabilities, editor)]


@hookimpl
def dataflow_settings() -> Iterable[SettingSpec]:
    """Declare the settings of the PostgreSQL dialect."""
    modes = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
    return [
        SettingSpec(
            "pooler", str, "auto", "What stands between here and the server; 'transaction' is PgBouncer's mode.",
            choices=("auto", "none", "transaction"),
        ),
        SettingSpec("postgres_schema", str, None, "Schema of all tables (search_path); created if it may be."),
        SettingSpec(
            "postgres_tenant_url", str, None,
            "URL of the role that confined connections log in as, prepared by an administrator; made if not given.",
        ),
        SettingSpec("postgres_application_name", str, "dataflow", "Name shown in pg_stat_activity."),
        SettingSpec(
            "postgres_statement_timeout", float, 0.0, "Seconds a statement may run; 0 for no limit.", minimum=0
        ),
        SettingSpec("postgres_native_enums", bool, False, "Store enums as PostgreSQL enum types, not as checked text."),
        SettingSpec("postgres_sslmode", str, None, "As libpq's sslmode; the URL may say it too.", choices=modes),
        SettingSpec("postgres_sslrootcert", str, None, "File of the certificates that the server's is checked with."),
        SettingSpec("postgres_sslcert", str, None, "File of the client's certificate."),
        SettingSpec("postgres_sslkey", str, None, "File of the client's key."),
    ]  # fmt: skip
