"""Resources of RoboSystems: the database, the object store, the graph databases."""

from quayside.robosystems.dagster.resources.database import DatabaseResource
from quayside.robosystems.dagster.resources.graph import GraphResource
from quayside.robosystems.dagster.resources.storage import S3Resource

__all__ = ["DatabaseResource", "GraphResource", "S3Resource"]
