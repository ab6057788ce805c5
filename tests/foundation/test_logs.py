"""Log lines: text for people, JSON for machines, no secrets in either."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from quayside.foundation import logs

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("quayside")
    level = ours.level
    yield
    for handler in [h for h in root.handlers if h.get_name() == "quayside"]:
        root.removeHandler(handler)
    ours.setLevel(level)


def test_text_has_time_level_and_name(capsys: pytest.CaptureFixture[str]):
    logs.configure("text")
    logging.getLogger("quayside.kycc").info("loaded %d rows", 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.rstrip().endswith("INFO quayside.kycc: loaded 3 rows")


def test_json_is_one_object_a_line_with_extras(capsys: pytest.CaptureFixture[str]):
    logs.configure("json")
    logging.getLogger("quayside.kycc").warning("zwölf\nlines", extra={"batch_id": "b1", "rows": 3})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "quayside.kycc",
        "message": "zwölf\nlines",
        "batch_id": "b1",
        "rows": 3,
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_in_message_argument_or_trace(form, capsys: pytest.CaptureFixture[str]):
    logs.configure(form)
    try:
        raise ValueError("cannot reach postgresql://me:s3cret@db/x")
    except ValueError:
        logging.getLogger("quayside").exception(
            "on %s", "redis://:s3cret@h", extra={"url": "redis://:s3cret@h"}
        )
    err = capsys.readouterr().err
    assert "s3cret" not in err
    assert "ValueError" in err


def test_configuring_twice_does_not_double_lines(capsys: pytest.CaptureFixture[str]):
    logs.configure()
    logs.configure()
    logging.getLogger("quayside").info("once")
    assert capsys.readouterr().err.count("once") == 1
