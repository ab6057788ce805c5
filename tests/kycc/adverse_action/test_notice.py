"""Notices and their texts: which parties get one, what it says, and texts that are refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from tests.kycc.monitoring.cases import snapshot

from quayside.foundation.errors import InputError, NotFoundError
from quayside.kycc.adverse_action import NoticeTexts, load_texts, notices, parse_texts
from quayside.kycc.scorecard import evaluate, load_scorecard

pytestmark = pytest.mark.unit

CARD = load_scorecard("v1")
MOMENT = datetime(2026, 6, 30, tzinfo=UTC)


def table() -> pa.Table:
    batch = snapshot("NOTICES", 400, 8, risk=0.5)
    columns = {name: pa.array(batch.features[name], from_pandas=True) for name in CARD.required_features}
    return pa.table({"party_id": [f"P{i}" for i in range(400)]} | columns)


def test_every_declined_party_gets_one_and_no_other() -> None:
    given = table()
    scored = evaluate(CARD, {name: given[name] for name in CARD.required_features})
    decisions = scored.to_arrow()["decision"].to_pylist()
    declined = [
        party
        for party, decision in zip(given["party_id"].to_pylist(), decisions, strict=True)
        if decision == "decline"
    ]
    found = notices(CARD, given, MOMENT)
    assert [notice.party_id for notice in found] == declined != []
    assert all(1 <= len(notice.reasons) <= 4 for notice in found)
    assert {notice.decision for notice in found} == {"decline"}
    wider = notices(CARD, given, MOMENT, NoticeTexts(decisions=("decline", "review"), most=2))
    assert len(wider) == sum(decision != "approve" for decision in decisions)
    assert max(len(notice.reasons) for notice in wider) == 2
    assert notices(CARD, given.slice(0, 0), MOMENT) == []


def test_a_notice_reads_as_a_letter() -> None:
    notice = notices(CARD, table(), MOMENT)[0]
    lines = notice.text.splitlines()
    assert lines[0] == (
        f"We are unable to approve {notice.party_id}, on what was known on 2026-06-30. The principal reasons:"
    )
    assert lines[1:-1] == [f"{i}. {reason.sentence}" for i, reason in enumerate(notice.reasons, 1)]


def test_no_sentence_that_v1_can_give_speaks_of_scores_or_points() -> None:
    """A low score is no reason; what was found of the party is."""
    worded = load_texts().applied_to(CARD)
    sentences = [
        item.code_reason(code) for item in worded.characteristics for code in range(len(item.points_by_code))
    ]
    sentences += [rule.text for rule in worded.rules if rule.action == "cap" or rule.amount < 0]
    assert len(sentences) > 150
    for text in sentences:
        assert not re.search(r"\b(score|points?)\b", text, re.IGNORECASE), text


def test_texts_replace_sentences_and_nothing_else() -> None:
    texts = parse_texts(
        """
        language: de
        opening: "Wir können {party} nicht zusagen ({as_of}, {decision})."
        reasons:
          transaction_count_6m: "Weniger als {upper} Vorgänge in sechs Monaten."
          late_payment_ratio_6m: "Rechnungen wurden spät bezahlt."
        missing: {company_age_years: "Das Alter des Unternehmens ist unbekannt."}
        rules: {no_activity_penalty: "Kein Vorgang in den letzten 30 Tagen."}
        """,
        "de.yaml",
    )
    german = notices(CARD, table(), MOMENT, texts)
    english = notices(CARD, table(), MOMENT)
    keys = [[(r.source, r.points_lost) for r in n.reasons] for n in german]
    assert keys == [[(r.source, r.points_lost) for r in n.reasons] for n in english]
    assert german[0].text.startswith(f"Wir können {german[0].party_id} nicht zusagen (2026-06-30, decline).")
    said = {r.source: r.sentence for n in german for r in n.reasons}
    assert re.fullmatch(r"Weniger als \d+ Vorgänge in sechs Monaten\.", said["transaction_count_6m"])


def test_a_party_whose_name_looks_like_a_field_is_not_filled_in_twice() -> None:
    given = table()
    odd = given.set_column(0, "party_id", pa.array(["{decision}{as_of}"] * given.num_rows))
    assert "approve {decision}{as_of}, on" in notices(CARD, odd, MOMENT)[0].text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("reasons: {kyc_verified: 'Your score is too low.'}", "speaks of 'score'"),
        ("rules: {kyc_override: 'It takes 30 points.'}", "speaks of 'points'"),
        ("opening: 'Dear {name}'", "'{name}' has no meaning"),
        ("most: 5", "most is 1 to 4, not 5"),
        ("most: true", "most is not of the form"),
        ("decisions: [refuse]", "'refuse' is no decision"),
        ("decisions: decline", "decisions is not of the form"),
        ("reasons: [a]", "reasons is not of the form"),
        ("reason: {}", "a mapping with any of"),
        ("- a", "a mapping with any of"),
        ("most: 1\nmost: 2", "a key is written twice"),
    ],
)
def test_documents_that_are_refused(text: str, error: str) -> None:
    with pytest.raises(InputError, match=re.escape(error)):
        parse_texts(text, "texts.yaml")


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        (NoticeTexts(reasons={"kyc_verifyed": "x"}), "'kyc_verifyed' is neither"),
        (NoticeTexts(missing={"nothing": "x"}), "'nothing' is neither"),
        (NoticeTexts(rules={"kyc_overide": "x"}), "has no rule 'kyc_overide'"),
        (NoticeTexts(reasons={"network_size": "Over {lower}."}), "bin 0 has no {lower} edge"),
        (NoticeTexts(reasons={"network_size": "Over {floor}."}), "'{floor}'"),
    ],
)
def test_texts_that_do_not_fit_the_card(texts: NoticeTexts, error: str) -> None:
    with pytest.raises(InputError, match=re.escape(error)):
        texts.applied_to(CARD)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no file of notice texts"):
        load_texts(tmp_path / "absent.yaml")
    path = tmp_path / "texts.yaml"
    path.write_text("language: nl\nmost: 2\n")
    assert load_texts(path) == NoticeTexts(language="nl", most=2)
    assert load_texts().language == "en"
