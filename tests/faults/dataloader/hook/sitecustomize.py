"""Python imports a module of this name at every start, where PYTHONPATH leads to it: the platform under test only."""

import os

if folder := os.environ.get("QUAYSIDE_FAULTS"):
    from tests.faults.dataloader import points

    points.install(folder)
