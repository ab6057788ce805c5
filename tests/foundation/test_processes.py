"""Folders of ours: what is in them is nobody else's business."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quayside.foundation import processes

pytestmark = pytest.mark.unit


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_private_folder_and_what_is_missing_above_it(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "lake" / "files"
    processes.private_folder(folder)
    # As root the server's own user passes through, but lists nothing.
    above = 0o711 if os.geteuid() == 0 else 0o700
    assert (mode(folder), mode(folder.parent), mode(folder.parent.parent)) == (0o700, above, above)


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o775)
    processes.private_folder(folder)
    assert mode(folder) == 0o775
    processes.private_folder(folder / "mine")
    assert (mode(folder), mode(folder / "mine")) == (0o775, 0o700)
