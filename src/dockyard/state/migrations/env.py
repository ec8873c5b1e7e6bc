"""Run by Alembic with the connection that ``dockyard.state`` hands over."""

from __future__ import annotations

from alembic import context

from dockyard.state.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
