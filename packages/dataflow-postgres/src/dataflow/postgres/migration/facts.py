"""What each class of operation does to PostgreSQL: locks, rewrites, scans. Data, measured; see `SOURCE`."""

from collections.abc import Mapping

import attrs

SOURCE = "measured on PostgreSQL 15.18, 16.14 and 18.4 through pg_locks, relfilenodes and scan counters"
AX, EX, SRX = "ACCESS EXCLUSIVE", "EXCLUSIVE", "SHARE ROW EXCLUSIVE"
S, SUX, RX = "SHARE", "SHARE UPDATE EXCLUSIVE", "ROW EXCLUSIVE"
RS, AS = "ROW SHARE", "ACCESS SHARE"
LOCKS = (AS, RS, RX, SUX, S, SRX, EX, AX)
"""The lock modes of tables, from the weakest to the strongest."""


@attrs.frozen
class Fact:
    """What an operation does.

    Attributes:
        lock: of the table it is about; "" for none.
        far: lock of the tables that its foreign keys lead to, or lead from.
        rewrites: whether all rows are written anew.
        scans: whether all rows are read meanwhile.
        data_loss: "none", "possible" or "certain".
        fails: "no", or when the rows can make it fail.
    """

    lock: str = AX
    far: str = ""
    rewrites: bool = False
    scans: bool = False
    data_loss: str = "none"
    fails: str = "no"


_CATALOG = Fact()
_REWRITE = Fact(rewrites=True, scans=True)
_SCAN = Fact(scans=True, fails="yes")
FACTS: Mapping[str, Fact] = {
    # columns
    "add_column_nullable": _CATALOG,
    "add_column_constant_default": _CATALOG,
    "add_column_stable_default": _CATALOG,
    "add_column_volatile_default": _REWRITE,
    "add_column_not_null_constant_default": _CATALOG,
    "add_column_not_null_no_default": Fact(fails="always when rows exist"),
    "add_column_identity": _REWRITE,
    "add_column_generated_stored": Fact(rewrites=True, scans=True, fails="possible"),
    "add_column_generated_virtual": _CATALOG,
    "add_column_domain_constrained": Fact(rewrites=True, scans=True, fails="possible"),
    "drop_column": Fact(data_loss="certain"),
    "rename_column": _CATALOG,
    "change_type_coercible": Fact(far=AX),
    "change_type_index_rebuild": Fact(far=AX, scans=True),
    "change_type_rewrite": Fact(far=AX, rewrites=True, scans=True),
    "change_type_narrowing": Fact(far=AX, rewrites=True, scans=True, data_loss="possible", fails="yes"),
    "change_type_referenced_pk": Fact(far=AX, rewrites=True, scans=True),
    "set_not_null": _SCAN,
    "set_not_null_proven": _CATALOG,
    "drop_not_null": _CATALOG,
    "set_default": _CATALOG,
    "drop_default": _CATALOG,
    "add_identity_existing": Fact(fails="possible"),
    "set_identity": _CATALOG,
    "drop_identity": _CATALOG,
    "set_expression": Fact(rewrites=True, scans=True, data_loss="possible", fails="possible"),
    "set_expression_virtual": _CATALOG,
    "drop_expression": _CATALOG,
    # keys, checks
    "add_check": _SCAN,
    "add_check_not_valid": _CATALOG,
    "validate_check": Fact(lock=SUX, scans=True, fails="yes"),
    "drop_check": _CATALOG,
    "rename_constraint": _CATALOG,
    "add_primary_key": _SCAN,
    "add_primary_key_using_index": _CATALOG,
    "drop_primary_key": _CATALOG,
    "add_unique": _SCAN,
    "add_unique_using_index": _CATALOG,
    "drop_unique": _CATALOG,
    "add_exclusion": _SCAN,
    "add_foreign_key": Fact(lock=SRX, far=SRX, scans=True, fails="yes"),
    "add_foreign_key_not_valid": Fact(lock=SRX, far=SRX),
    "validate_foreign_key": Fact(lock=SUX, far=RS, scans=True, fails="yes"),
    "drop_foreign_key": Fact(far=AX),
    # indexes
    "create_index": Fact(lock=S, scans=True, fails="unique only"),
    "create_index_concurrently": Fact(lock=SUX, scans=True, fails="unique only"),
    "partition_index": Fact(lock=S, scans=True, fails="unique only"),
    "drop_index": _CATALOG,
    "drop_index_concurrently": Fact(lock=SUX),
    "rename_index": Fact(lock=""),
    # tables
    "create_table": Fact(lock=""),
    "create_table_with_fk": Fact(lock="", far=SRX),
    "partition_create": Fact(lock="", far=AX),
    "create_table_inheriting": Fact(lock="", far=SRX),
    "rename_table": _CATALOG,
    "drop_table": Fact(far=AX, data_loss="certain"),
    "set_unlogged": Fact(rewrites=True, scans=True, data_loss="possible"),
    "set_logged": _REWRITE,
    "set_table_options": Fact(lock=SUX),
    "enable_rls": _CATALOG,
    "comment": Fact(lock=SUX),
    # the rest
    "create_policy": _CATALOG,
    "drop_policy": _CATALOG,
    "create_trigger": Fact(lock=SRX),
    "drop_trigger": _CATALOG,
    "create_view": Fact(lock="", far=AS),
    "create_materialized_view": Fact(lock="", far=AS, scans=True),
    "drop_view": _CATALOG,
    "alter_view": _CATALOG,
    "create_function": Fact(lock=""),
    "drop_function": Fact(lock=""),
    "create_sequence": Fact(lock=""),
    "alter_sequence": Fact(lock=""),
    "sequence_owner": Fact(lock=AS),
    "rename_sequence": Fact(lock=""),
    "drop_sequence": Fact(lock="", data_loss="certain"),
    "create_enum": Fact(lock=""),
    "drop_enum": Fact(lock=""),
    "enum_add_value": Fact(lock=""),
    "enum_replace": Fact(lock="", far=AX, rewrites=True, scans=True, data_loss="possible", fails="yes"),
    "bulk_update": Fact(lock=RX, far=RS, scans=True, fails="possible"),
}


def stronger(one: str, other: str) -> str:
    """Return the stronger of two lock modes, either of which may be none."""
    return max(one, other, key=lambda mode: LOCKS.index(mode) if mode else -1)
