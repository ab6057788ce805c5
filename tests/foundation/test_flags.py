"""Feature flags: who gets one, and that the answer is stable."""

from __future__ import annotations

from datetime import date

import pytest

from quayside.foundation import flags
from quayside.foundation.flags import DatabaseFlags, Flag, Flags, bucket
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings

TODAY = date(2026, 6, 30)
SUBJECTS = [f"party-{i}" for i in range(20_000)]


@pytest.mark.unit
@pytest.mark.parametrize(
    "flag, subject, expected",
    [
        (Flag("f", enabled=True), "a", True),
        (Flag("f", enabled=False), "a", False),
        (Flag("f", enabled=True, rollout_percent=0), "a", False),
        (Flag("f", enabled=True, audience=frozenset({"a"})), "a", True),
        (Flag("f", enabled=True, audience=frozenset({"a"})), "b", False),
        (Flag("f", enabled=True, expires_on=TODAY), "a", True),
        (Flag("f", enabled=True, expires_on=date(2026, 6, 29)), "a", False),
    ],
)
def test_who_gets_a_flag(flag: Flag, subject: str, expected: bool):
    assert flag.applies(subject, TODAY) is expected


@pytest.mark.unit
def test_buckets_are_these_for_ever():
    # Written down: another hash would switch half of all rollouts over.
    assert [bucket("flag", s) for s in ("a", "b", "", "ü")] == [28.87, 41.49, 76.83, 94.9]


@pytest.mark.unit
def test_a_rollout_reaches_its_share_and_only_grows():
    reached = {p: {s for s in SUBJECTS if Flag("f", True, p).applies(s, TODAY)} for p in (10, 50, 100)}
    assert len(reached[10]) / len(SUBJECTS) == pytest.approx(0.10, abs=0.01)
    assert len(reached[50]) / len(SUBJECTS) == pytest.approx(0.50, abs=0.01)
    assert reached[10] < reached[50] < reached[100]
    assert len(reached[100]) == len(SUBJECTS)


@pytest.mark.unit
def test_flags_do_not_choose_the_same_subjects():
    first = {s for s in SUBJECTS if bucket("first", s) < 50}
    second = {s for s in SUBJECTS if bucket("second", s) < 50}
    assert len(first & second) / len(SUBJECTS) == pytest.approx(0.25, abs=0.02)


@pytest.mark.integration
def test_the_table_decides_and_an_unknown_flag_is_off(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    with connect(settings) as connection:
        connection.execute(
            "INSERT INTO ops.flags (name, enabled, rollout_percent, audience)"
            " VALUES ('on', true, 100, ''), ('off', false, 100, ''), ('some', true, 100, 'a, b')"
        )
    port: Flags = DatabaseFlags(settings)
    asked = [("on", "a"), ("off", "a"), ("some", "b"), ("some", "c"), ("unknown", "a")]
    assert [port.enabled(*question) for question in asked] == [True, False, True, False, False]

    with connect(settings) as connection:
        connection.execute("UPDATE ops.flags SET enabled = false WHERE name = 'on'")
    assert port.enabled("on", "a")  # still the cached answer
    monkeypatch.setattr(flags, "CACHE_SECONDS", 0.0)
    assert not port.enabled("on", "a")
