"""The lake: DuckLake with its catalog in PostgreSQL (schema ``lake``) and its Parquet data in a folder or on S3.

`Lake` gives DuckDB connections with the lake attached, transactions that survive concurrent writers, and tables that
are made when missing. Reading for people, exports, publication and upkeep are modules beside it. Belongs here: what
every system does with the lake. Does not belong here: the name of any system's table. https://ducklake.select
"""

from quayside.foundation.lake.lake import Lake, LakeTable

__all__ = ["Lake", "LakeTable"]
