"""Resources every location can share. Each hands on a plain object of the foundation and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

from quayside.foundation.settings import Settings, load_settings

if TYPE_CHECKING:
    import duckdb
    import psycopg
    import sqlalchemy

    from quayside.foundation.lake import Lake


class SettingsResource(dg.ConfigurableResource):
    """The platform's settings, read in the process that runs the step."""

    def get(self) -> Settings:
        """Settings from the environment and ``.env``; see `load_settings`."""
        return load_settings()


class PostgresResource(dg.ConfigurableResource):
    """The platform's PostgreSQL; starts the embedded server if that is meant."""

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A psycopg connection: committed at the end of the block, rolled back when it raises."""
        from quayside.foundation.postgres import connect

        with connect(load_settings()) as connection:
            yield connection

    def engine(self) -> sqlalchemy.Engine:
        """The process's pooled engine."""
        from quayside.foundation.postgres import engine

        return engine(load_settings())


class LakeResource(dg.ConfigurableResource):
    """The lake. ``threads`` and ``memory_limit`` ("2GB") bound DuckDB; left out, the settings decide."""

    threads: int | None = None
    memory_limit: str | None = None

    def lake(self) -> Lake:
        """A handle; it opens nothing yet."""
        from quayside.foundation.lake import Lake

        return Lake(load_settings())

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection with the lake attached."""
        with self.lake().connect(threads=self.threads, memory_limit=self.memory_limit) as connection:
            yield connection
