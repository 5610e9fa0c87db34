"""A first risk level for each step of a plan, by the decision matrix of the reference documents and by measured facts.

Where the matrix is silent, what a step does decides: losing data is worse than rewriting, and that worse than scanning.
Plugins raise levels with rules of the kind "risk" (`dataflow_schema_rules`).
"""

from enum import StrEnum

from dataflow.changes import Step


class RiskLevel(StrEnum):
    """LOW, MEDIUM, HIGH or CRITICAL; equal to its name; `rank` orders them."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"

    @property
    def rank(self) -> int:
        """0 for LOW to 3 for CRITICAL."""
        return list(RiskLevel).index(self)

    def __str__(self) -> str:
        return self.value


_MATRIX = {
    RiskLevel.LOW: (
        "add_column_nullable add_column_constant_default add_column_stable_default add_column_generated_virtual"
        " add_column_references create_index create_index_concurrently create_table create_table_with_fk"
        " create_sequence create_enum enum_add_value create_view comment rename_index rename_constraint set_default"
        " drop_default drop_not_null validate_check validate_foreign_key validate_not_null"
    ),
    RiskLevel.MEDIUM: (
        "add_column_not_null_constant_default add_column_not_null_no_default rename_column add_foreign_key"
        " add_foreign_key_not_valid drop_index drop_index_concurrently add_check add_check_not_valid drop_check"
        " add_unique add_unique_using_index add_primary_key add_primary_key_using_index set_not_null"
        " set_not_null_proven drop_view drop_trigger create_trigger enable_rls create_policy"
    ),
    RiskLevel.HIGH: (
        "drop_column drop_column_cascade change_type_coercible change_type_index_rebuild change_type_rewrite"
        " change_type_narrowing change_type_referenced_pk drop_foreign_key drop_unique drop_primary_key set_expression"
        " drop_policy drop_sequence"
    ),
    RiskLevel.CRITICAL: "rename_table drop_table drop_table_referenced truncate drop_schema_cascade drop_type_cascade",
}
_LEVELS = {operation: level for level, operations in _MATRIX.items() for operation in operations.split()}


def level_of(step: Step) -> RiskLevel:
    """Return the level of a step."""
    known = _LEVELS.get(step.operation)
    if known is not None:
        return known
    if step.data_loss in ("certain", "possible"):
        return RiskLevel.HIGH
    if step.rewrites or step.scans or step.fails_on_data not in ("no", "n/a"):
        return RiskLevel.MEDIUM
    return RiskLevel.LOW
