"""KYCC's jobs, by the assets they materialize. `definitions` resolves them into executable jobs."""

import dagster as dg

#: Who looks after these jobs; alerts name it.
OWNER = {"owner": "team:kycc"}

INGEST_JOB = dg.define_asset_job(
    "ingest_job",
    selection=dg.AssetSelection.assets("ingest_synthetic_batch"),
    description="Load one batch from a file into the lake.",
    tags=OWNER,
)

FEATURE_JOB = dg.define_asset_job(
    "feature_job",
    selection=dg.AssetSelection.assets(
        "extract_kyc_features", "extract_txn_features", "extract_network_features", "extract_features"
    ),
    description="Compute the features of a batch: the one named, else the last one loaded.",
    tags=OWNER,
)

SCORING_JOB = dg.define_asset_job(
    "scoring_job",
    selection=dg.AssetSelection.assets("score_batch"),
    description="Score a batch: the one named, else the last one that has features.",
    tags=OWNER,
)
