"""Ingest: a batch from a JSON file, a Parquet folder or the lake, judged row by row, into KYCC's tables.

    result = ingest(lake, "data/synthetic_profiles.json")

Rows that cannot be used go to ``kycc.quarantine`` with their reason and position; a batch of which too many cannot be used
is refused as a whole. Belongs here: the form of a batch and what is accepted as one. Does not: what is computed of it.
"""

from quayside.kycc.ingest.result import IngestResult
from quayside.kycc.ingest.run import ingest

__all__ = ["IngestResult", "ingest"]
