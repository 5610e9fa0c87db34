"""What a role of the database may do with the tables of models: what a dialect grants, and what it finds granted.

Plain values; who is to have which privilege is decided elsewhere, and how it is written the dialect knows.
"""

from collections.abc import Mapping

import attrs

ALL = "*"
"""In place of names: every column of a table, also those that it gets later."""


@attrs.frozen
class TablePrivileges:
    """What a role may do with a table besides reading it.

    Attributes:
        insert: columns that it may give values in new rows; `ALL` among them: every one.
        update: columns that it may change; in the same form.
        delete: whether it may remove rows.
        more: whether it may do what no operation on records does: empty or own the table, refer to it, watch it with
            triggers. It is never granted, only found.
    """

    insert: frozenset[str] = frozenset()
    update: frozenset[str] = frozenset()
    delete: bool = False
    more: bool = False

    def inserts(self, column: str) -> bool:
        """Tell whether a column may be given a value in new rows."""
        return ALL in self.insert or column in self.insert

    def updates(self, column: str) -> bool:
        """Tell whether a column may be changed."""
        return ALL in self.update or column in self.update


@attrs.frozen
class RolePrivileges:
    """What a role may do.

    Attributes:
        role: its name.
        tables: table -> what it may do with it; tables that are not there are left out where privileges are found.
        creates: whether it may create tables. It is taken from the role where it is not wanted, and never granted.
    """

    role: str
    tables: Mapping[str, TablePrivileges] = attrs.field(factory=dict)
    creates: bool = False
