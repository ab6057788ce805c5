"""Scorecard versions: which card decides, which ones wait, who made each so.

    draft ──activate──▶ active ──another is activated──▶ retired
      └──reject──▶ rejected      └──roll back──▶ rolled_back

Exactly one version is active, which the database itself enforces. Every change is one transaction with an audit row and an
actor. Belongs here: the life of a version. Does not: how its points came about.
"""

from quayside.kycc.versions.store import Versions
from quayside.kycc.versions.version import ACTIVE, SEED, Status, Training, Version

__all__ = ["ACTIVE", "SEED", "Status", "Training", "Version", "Versions"]
