"""Alembic run as an application would, without its env.py: one revision at a time, on a connection that is given."""

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


def upgrade(
    connection: sa.Connection, scripts: "ScriptDirectory", revision: str, metadata: sa.MetaData | None = None
) -> None:
    """Bring a database to a revision.

    Args:
        connection: to it.
        scripts: the history.
        revision: whose predecessors are all made.
        metadata: of the application, where its revisions rely on how it names constraints.
    """
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    config = Config()
    config.set_main_option("script_location", scripts.dir.replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", str(connection.engine.url).replace("%", "%%"))

    def made(now: object, _: object) -> object:
        return scripts._upgrade_revs(revision, now)  # type: ignore[arg-type]  # noqa: SLF001  # as alembic.command does

    with EnvironmentContext(config, scripts, fn=made, destination_rev=revision) as context:
        context.configure(connection=connection, target_metadata=metadata)
        with context.begin_transaction():
            context.run_migrations()
    connection.commit()
