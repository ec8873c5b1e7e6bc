"""Alembic revisions, run by ``dockyard.state`` when it opens a database."""
