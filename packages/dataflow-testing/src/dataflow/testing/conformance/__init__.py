"""Conformance suites for dialects: what "the same on every database" means, as tests.

A dialect's author writes one test module::

    from dataflow.testing.conformance import *

    @pytest.fixture(scope="module")
    def database_url():
        yield "acme://…"  # of an empty database

and declares in its `DialectSpec.capabilities` what is emulated or unsupported (`CAPABILITIES` lists the names). Suites
are classes; the star brings all there are, and those to come. To replace a test, derive and give the reason::

    class TestLimits(TestLimits):
        @deviates("our server keeps texts of up to 1 MB")
        def test_texts_and_bytes_of_megabytes_come_back(self, calls): …
"""

from collections.abc import Mapping

from dataflow.testing.conformance.aggregates import TestAggregates
from dataflow.testing.conformance.bench import Bench
from dataflow.testing.conformance.bulk import TestBulkChange, TestBulkCreate
from dataflow.testing.conformance.capabilities import CAPABILITIES
from dataflow.testing.conformance.changelog import TestChangeLog
from dataflow.testing.conformance.concurrency import TestConcurrency
from dataflow.testing.conformance.confinement import TestConfinement
from dataflow.testing.conformance.context import TestContext, TestEnter
from dataflow.testing.conformance.crud import TestCrud
from dataflow.testing.conformance.declaration import TestDeclaration
from dataflow.testing.conformance.documents import TestJsonFilters, TestListFilters
from dataflow.testing.conformance.errors import TestErrors
from dataflow.testing.conformance.filters import TestFilters
from dataflow.testing.conformance.grants import TestGrants
from dataflow.testing.conformance.identifiers import TestIdentifiers
from dataflow.testing.conformance.introspection import TestIntrospection
from dataflow.testing.conformance.limits import TestLimits
from dataflow.testing.conformance.operators import TestOperators
from dataflow.testing.conformance.paging import TestPaging
from dataflow.testing.conformance.relations import TestForeignKeyActions, TestForeignKeys, TestInclude
from dataflow.testing.conformance.schema_editor import TestCatalogs, TestChanges
from dataflow.testing.conformance.sealing import TestReadOnly, TestShield
from dataflow.testing.conformance.sql import TestSql
from dataflow.testing.conformance.suite import Suite, deviates, requires
from dataflow.testing.conformance.transactions import TestIsolation, TestTransactions
from dataflow.testing.conformance.types import TestDefaults, TestTypes
from dataflow.testing.conformance.upserts import TestUpserts
from dataflow.testing.conformance.zones import TestZones

SUITES: Mapping[str, type[Suite]] = {
    suite.__name__: suite
    for suite in (
        TestDeclaration,
        TestTypes,
        TestDefaults,
        TestZones,
        TestCrud,
        TestOperators,
        TestFilters,
        TestJsonFilters,
        TestListFilters,
        TestPaging,
        TestInclude,
        TestForeignKeys,
        TestForeignKeyActions,
        TestAggregates,
        TestBulkCreate,
        TestBulkChange,
        TestUpserts,
        TestTransactions,
        TestIsolation,
        TestConcurrency,
        TestContext,
        TestEnter,
        TestReadOnly,
        TestShield,
        TestConfinement,
        TestChangeLog,
        TestGrants,
        TestErrors,
        TestSql,
        TestIntrospection,
        TestCatalogs,
        TestChanges,
        TestIdentifiers,
        TestLimits,
    )
}
"""Every standard suite, by name, in the order in which they run."""

__all__ = [
    "TestAggregates",
    "TestBulkChange",
    "TestBulkCreate",
    "TestCatalogs",
    "TestChangeLog",
    "TestChanges",
    "TestConcurrency",
    "TestConfinement",
    "TestContext",
    "TestCrud",
    "TestDeclaration",
    "TestDefaults",
    "TestEnter",
    "TestErrors",
    "TestFilters",
    "TestForeignKeyActions",
    "TestForeignKeys",
    "TestGrants",
    "TestIdentifiers",
    "TestInclude",
    "TestIntrospection",
    "TestIsolation",
    "TestJsonFilters",
    "TestLimits",
    "TestListFilters",
    "TestOperators",
    "TestPaging",
    "TestReadOnly",
    "TestShield",
    "TestSql",
    "TestTransactions",
    "TestTypes",
    "TestUpserts",
    "TestZones",
    "deviates",
]
_ALSO_PUBLIC = (CAPABILITIES, Bench, requires)  # for suites of one's own; the star does not bring them
