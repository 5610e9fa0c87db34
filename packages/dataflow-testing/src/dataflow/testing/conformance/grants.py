"""Privileges of roles, as far as a single user can tell: what one may do is found, and nonsense is refused."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from dataflow import DataFlow
from dataflow.dialect import Program, RolePrivileges, TablePrivileges
from dataflow.errors import ConfigurationError, SchemaError
from dataflow.session import Call
from dataflow.testing.conformance.bench import Bench
from dataflow.testing.conformance.suite import Suite, requires

TABLES = ("granted_rows", "granted_nowhere")


@requires("grants")
class TestGrants(Suite):
    """What a role may do (`Dialect.privileges`), and the statements that let it (`Dialect.grants`)."""

    conformance_area: ClassVar[str] = "grants"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Row:
            n: int
            text: str | None = None
            __tablename__ = "granted_rows"
            __dataflow__: ClassVar = {"timestamps": False}

    @staticmethod
    def found(call: Call, role: str | None = None) -> Program[RolePrivileges]:
        """Look up what a role may do; None: the one that is connected."""
        return (yield from call.core.dialect.privileges(TABLES, role))

    @pytest.fixture
    def own(self, bench: Bench, clean: None) -> RolePrivileges:
        """What the one that is connected may do, who has made the tables."""
        del clean
        bench.count("Row")  # the table is made now
        return bench.program(self.found, write=False)

    def test_who_has_made_a_table_may_do_everything_with_it(self, own: RolePrivileges) -> None:
        table = own.tables["granted_rows"]
        assert own.role
        assert own.creates
        assert all(table.inserts(name) and table.updates(name) for name in ("id", "n", "text"))
        assert table.delete
        assert table.more

    def test_what_is_not_there_is_not_found(self, own: RolePrivileges) -> None:
        assert "granted_nowhere" not in own.tables

    def test_a_role_may_be_named(self, bench: Bench, own: RolePrivileges) -> None:
        assert bench.program(lambda call: self.found(call, own.role), write=False) == own

    @staticmethod
    def statements(bench: Bench, role: str, tables: Mapping[str, TablePrivileges]) -> Any:
        """Ask for the statements that give a role privileges."""
        wanted = RolePrivileges(role, tables)
        return bench.program(lambda call: call.core.dialect.grants(wanted), write=False)

    def test_a_role_that_is_not_there_is_refused(self, bench: Bench, own: RolePrivileges) -> None:
        role, wanted = "dataflow nobody's", {"granted_rows": TablePrivileges()}
        with pytest.raises(ConfigurationError) as caught:
            self.statements(bench, role, wanted)
        assert caught.value.code == "no-role"
        with pytest.raises(ConfigurationError) as caught:
            bench.program(lambda call: self.found(call, role), write=False)
        assert caught.value.code == "no-role"

    def test_who_owns_the_tables_is_refused_for_nothing_could_be_kept_from_it(
        self, bench: Bench, own: RolePrivileges
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            self.statements(bench, own.role, {"granted_rows": TablePrivileges()})
        assert caught.value.code == "unsafe-role"

    def test_nothing_is_changed_by_asking(self, bench: Bench, own: RolePrivileges) -> None:
        with pytest.raises((ConfigurationError, SchemaError)):
            self.statements(bench, own.role, {"granted_nowhere": TablePrivileges()})
        assert bench.program(self.found, write=False) == own
