"""Alembic's environment, shared by all schemas. The caller gives the connection and its transaction."""

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
schema = context.config.attributes["schema"]

connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
context.configure(
    connection=connection,
    version_table=context.config.attributes["version_table"],
    version_table_schema=schema,
)
context.run_migrations()
