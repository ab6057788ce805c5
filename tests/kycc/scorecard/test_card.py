"""Cards as documents: round trips, hashes, and every way a document can be wrong."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from quayside.foundation.errors import InputError, NotFoundError
from quayside.kycc.scorecard import Scorecard, load_scorecard, packaged_versions, parse_scorecard

from .cases import Case, anything_finite, cases

pytestmark = pytest.mark.unit

DOCUMENT: dict[str, Any] = {
    "version": "t1",
    "direction": "higher_is_safer",
    "base": 300,
    "bands": "default",
    "scaling": {"base_score": 600, "base_odds": 20, "points_to_double_odds": 50},
    "characteristics": [
        {
            "feature": "age",
            "label": "Age",
            "kind": "numeric",
            "closed": "left",
            "cuts": [1, 2.5],
            "points": [0, 10, 20],
            "missing": {"points": 5, "reason": "Age is unknown."},
            "reason": "Younger than {upper}.",
        },
        {
            "feature": "type",
            "kind": "categorical",
            "bins": [{"values": ["a", "b"], "points": 3}, {"values": ["c"], "points": 4}],
            "other": 1,
            "missing": {"points": 0, "reason": "Type is unknown."},
            "reason": "Type.",
            "bin_labels": ["low", "high"],
            "bin_reasons": {"0": "Type is a or b."},
        },
    ],
    "extra_features": ["volume"],
    "rules": [
        {"id": "bonus", "priority": 1, "when": "volume > 5", "then": {"adjust": 25}, "text": "Bonus."},
        {"id": "mark", "priority": 2, "when": "age < 1", "then": {"flag": "young"}, "text": "Young."},
    ],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """DOCUMENT with the value at a dotted path replaced, or removed where it is Ellipsis."""
    document = copy.deepcopy(DOCUMENT)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = document
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def test_the_document_is_valid_and_comes_back() -> None:
    card = Scorecard.from_dict(DOCUMENT)
    assert Scorecard.from_dict(card.to_dict()) == card
    again = Scorecard.from_dict(json.loads(json.dumps(card.to_dict())))
    assert again == card
    assert again.content_hash == card.content_hash
    assert card.to_dict() == DOCUMENT | {
        "characteristics": [
            DOCUMENT["characteristics"][0],
            {"label": "type", **DOCUMENT["characteristics"][1]},
        ]
    }


@pytest.mark.slow
@settings(max_examples=60)
@given(cases(numbers=anything_finite))
def test_any_card_survives_json_and_yaml(case: Case) -> None:
    document = case.card.to_dict()
    as_json = parse_scorecard(json.dumps(document), "text", json_only=True)
    as_yaml = parse_scorecard(yaml.safe_dump(document), "text")
    assert as_json == as_yaml == case.card
    assert as_json.content_hash == as_yaml.content_hash == case.card.content_hash


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("characteristics.0.cuts.1", 2.5000000000000004),
        ("characteristics.0.closed", "right"),
        ("characteristics.0.missing.points", 6),
        ("characteristics.0.reason", "Under {upper}."),
        ("characteristics.1.bins.0.values.0", "A"),
        ("characteristics.1.other", 0),
        ("rules.0.then.adjust", 24),
        ("rules.0.when", "volume >= 5"),
        ("scaling.base_odds", 21),
        ("version", "t2"),
    ],
)
def test_whatever_changes_changes_the_hash(path: str, value: Any) -> None:
    assert (
        Scorecard.from_dict(changed(path, value)).content_hash != Scorecard.from_dict(DOCUMENT).content_hash
    )


def test_how_a_number_is_written_does_not_change_the_hash() -> None:
    whole = Scorecard.from_dict(changed("characteristics.0.cuts", [0, 2.5]))
    broken = Scorecard.from_dict(changed("characteristics.0.cuts", [-0.0, 2.5]))
    assert whole == broken
    assert whole.content_hash == broken.content_hash


HOSTILE: list[tuple[str, Any, str]] = [
    # what · set to · the sentence
    ("version", ..., "Scorecard: version is missing."),
    ("version", 1.0, "Scorecard: version must be text, not 1.0."),
    ("version", "../v1", "version '../v1' must be letters, digits"),
    ("version", "", "version '' must be letters, digits"),
    ("colour", "red", "Scorecard t1: 'colour' is not a known field."),
    ("direction", "lower_is_safer", "direction can only be 'higher_is_safer'"),
    ("bands", "mine", "bands can only be 'default'"),
    ("base", 0, "base is 300 by definition, not 0"),
    ("base", True, "base must be a whole number within reason, not True"),
    ("scaling", {"base_score": 600}, "scaling: base_odds is missing"),
    ("scaling.base_odds", 0, "base_score, base_odds and points_to_double_odds are positive numbers"),
    ("scaling.base_odds", float("inf"), "base_odds must be a finite number, not inf"),
    ("characteristics", ..., "characteristics is missing"),
    ("characteristics", [], "it needs 1 to 127 characteristics"),
    ("characteristics", {}, "characteristics must be a list, not {}"),
    (
        "characteristics",
        ["age"],
        "characteristics must be a list in which each item is a mapping, not ['age']",
    ),
    ("characteristics.0.feature", "", "feature '' must have 1 to 63 bytes"),
    ("characteristics.0.feature", "é" * 32, "must have 1 to 63 bytes"),
    ("characteristics.0.feature", "a\nb", "must have 1 to 63 bytes, all printable"),
    ("characteristics.0.feature", "a\x00", "contains a character that databases cannot hold"),
    ("characteristics.0.feature", "a\ud800", "contains a character that databases cannot hold"),
    ("characteristics.1.feature", "AGE", "feature 'AGE' appears twice"),
    ("characteristics.0.kind", "ordinal", "kind must be numeric or categorical, not 'ordinal'"),
    ("characteristics.0.closed", ..., "characteristic 1: closed is missing"),
    ("characteristics.0.closed", "both", "closed must be left or right, not 'both'"),
    ("characteristics.0.cuts", [2.5, 1], "cuts must rise, but 2.5 is followed by 1"),
    ("characteristics.0.cuts", [1, 1], "cuts must rise, but 1 is followed by 1"),
    (
        "characteristics.0.cuts",
        [1, float("nan")],
        "cuts must be a list in which each item is a finite number",
    ),
    (
        "characteristics.0.cuts",
        [1, float("inf")],
        "cuts must be a list in which each item is a finite number",
    ),
    ("characteristics.0.cuts", [1, 10**400], "cuts must be a list in which each item is a finite number"),
    ("characteristics.0.cuts", [1, "2.5"], "cuts must be a list in which each item is a finite number"),
    ("characteristics.0.cuts", [1, True], "cuts must be a list in which each item is a finite number"),
    ("characteristics.0.cuts", [1], "1 cuts make 2 bins, but points names 3"),
    ("characteristics.0.cuts", "12", "cuts must be a list, not '12'"),
    ("characteristics.0.points", [0, 10, -1], "points lie between 0 and 600, not at -1"),
    ("characteristics.0.points", [0, 10, 2.5], "points must be a list in which each item is a whole number"),
    ("characteristics.0.points", [0, 10, 601], "points lie between 0 and 600, not at 601"),
    ("characteristics.0.points", [0, 10, 597], "its best points add up to 901, which is more than 900"),
    ("characteristics.0.missing", ..., "missing is missing"),
    ("characteristics.0.missing", 0, "missing must be a mapping, not 0"),
    ("characteristics.0.missing", {"points": 0}, "missing: reason is missing"),
    ("characteristics.0.missing.points", -1, "points lie between 0 and 600, not at -1"),
    ("characteristics.0.reason", ..., "reason is missing"),
    ("characteristics.0.reason", " ", "a reason is empty"),
    ("characteristics.0.reason", "{upper.__class__}", "uses '{upper.__class__}', which has no meaning there"),
    ("characteristics.0.reason", "{0}", "uses '{0}', which has no meaning there"),
    ("characteristics.0.reason", "100 {", "uses '{', which has no meaning there"),
    (
        "characteristics.0.reason",
        "Over {lower}.",
        "bin 0 has no {lower} edge, give it a sentence in bin_reasons",
    ),
    ("characteristics.0.missing.reason", "Under {upper}.", "uses '{upper}', which has no meaning there"),
    ("characteristics.1.reason", "Under {upper}.", "uses '{upper}', which has no meaning there"),
    ("characteristics.0.bin_reasons", {"3": "x"}, "bin_reasons are keyed by bin, 0 to 2"),
    (
        "characteristics.0.bin_reasons",
        {"one": "x"},
        "bin_reasons must be a mapping from bin number to sentence",
    ),
    ("characteristics.0.bin_labels", ["a"], "it has 3 bins but 1 bin_labels"),
    ("characteristics.0.bins", [], "'bins' is not a known field"),
    ("characteristics.1.cuts", [1], "'cuts' is not a known field"),
    ("characteristics.1.bins", [], "it needs at least one bin"),
    ("characteristics.1.bins.0.values", [], "a bin names no category"),
    ("characteristics.1.bins.0.values", ["a", "c"], "category 'c' is in two places"),
    ("characteristics.1.bins.0.values", ["a", 1], "values must be a list in which each item is text"),
    ("characteristics.1.bins.0.values", ["a\x00"], "contains a character that databases cannot hold"),
    ("characteristics.1.bins.0.colour", "red", "bin 1: 'colour' is not a known field"),
    ("characteristics.1.other", ..., "other is missing"),
    ("characteristics.1.other", -1, "points lie between 0 and 600, not at -1"),
    ("extra_features", ["age"], "feature 'age' appears twice"),
    ("extra_features", [""], "extra feature '' must have 1 to 63 bytes"),
    (
        "rules.0.when",
        "volum > 5",
        "rule 'bonus' reads 'volum', which is neither a characteristic nor in extra",
    ),
    ("rules.0.when", "type > 5", "rule 'bonus' computes with the categorical feature 'type'"),
    ("rules.0.when", "__import__('os').system('true')", "Call is not allowed"),
    ("rules.0.when", 5, "when must be text, not 5"),
    ("rules.0.then", {}, "then must hold exactly one of cap, adjust, flag"),
    ("rules.0.then", {"cap": 500, "flag": "x"}, "then must hold exactly one of cap, adjust, flag"),
    ("rules.0.then", {"multiply": 2}, "then must hold exactly one of cap, adjust, flag"),
    ("rules.0.then", {"adjust": 2.5}, "adjust must be a whole number within reason, not 2.5"),
    ("rules.0.then", {"cap": 10**30}, "cap must be a whole number within reason"),
    ("rules.1.id", "bonus", "rule 'bonus' appears twice"),
    ("rules.0.priority", ..., "rule 1: priority is missing"),
    ("rules.0.colour", "red", "rule 1: 'colour' is not a known field"),
]


@pytest.mark.parametrize(("path", "value", "complaint"), HOSTILE)
def test_hostile_documents_are_refused_with_one_sentence(path: str, value: Any, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        Scorecard.from_dict(changed(path, value))
    message = str(caught.value)
    assert complaint in message
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("count", "bins", "rules", "complaint"),
    [
        (128, 1, 0, "it needs 1 to 127 characteristics"),
        (1, 251, 0, "it has 251 bins, 250 are the most"),
        (1, 1, 33, "it has 33 rules, 32 are the most"),
    ],
)
def test_size_is_bounded(count: int, bins: int, rules: int, complaint: str) -> None:
    item = DOCUMENT["characteristics"][0]
    document = {
        "version": "big",
        "base": 300,
        "characteristics": [
            item | {"feature": f"f{i}", "cuts": list(range(bins - 1)), "points": [0] * bins, "reason": "x",
                    "missing": {"points": 0, "reason": "x"}}
            for i in range(count)
        ],
        "rules": [
            {"id": f"r{i}", "priority": i, "when": "f0 > 1", "then": {"cap": 500}, "text": "t"} for i in range(rules)
        ],
    }  # fmt: skip
    with pytest.raises(InputError, match=complaint):
        Scorecard.from_dict(document)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "card.yaml: a scorecard is a mapping"),
        ("[1, 2]", "card.yaml: a scorecard is a mapping"),
        ("a: [1", "card.yaml is not valid YAML"),
        ("a: b: c", "card.yaml is not valid YAML on line 1: mapping values are not allowed here."),
        ("a: &x [1]\nb: *x", "YAML aliases (*name) are not allowed"),
        ("version: v1\nversion: v2", "a key is written twice in the mapping that starts on line 1"),
        ("a: {b: 1, b: 2}", "a key is written twice"),
        (
            "!!python/object/apply:os.system ['true']",
            "is not valid YAML on line 1: could not determine a const",
        ),
        ("a: \x07", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
        ("a: " + "9" * 5000, "is not valid YAML"),
        ("? [1]\n: 2", "is not valid YAML on line 1: found unhashable key"),
        ("version: t\nbase: .nan\ncharacteristics: []", "base must be a whole number within reason, not nan"),
        ("1: 2", "version is missing"),
        ("a: !!timestamp 2024-99-99", "is not valid YAML"),
    ],
)
def test_hostile_yaml_is_refused_with_one_sentence(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_scorecard(text, "card.yaml")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "card.json is not valid JSON"),
        ('{"version": "a", "version": "b"}', "card.json: a key is written twice in one object."),
        ('{"base": NaN}', "card.json: NaN is not a number a scorecard may hold."),
        ('{"base": -Infinity}', "-Infinity is not a number"),
        ("[" * 100_000, "card.json is not valid JSON"),
        ("version: v1", "card.json is not valid JSON"),
        ('{"base": 1' + "0" * 5000 + "}", "card.json is not valid JSON"),
    ],
)
def test_hostile_json_is_refused_with_one_sentence(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_scorecard(text, "card.json", json_only=True)
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 300


def test_cards_are_found_by_name_or_file(tmp_path: Path) -> None:
    assert packaged_versions() == ("v1",)
    card = load_scorecard("v1")
    for name, text in (("a.json", json.dumps(card.to_dict())), ("a.yaml", yaml.safe_dump(card.to_dict()))):
        path = tmp_path / name
        path.write_text(text)
        assert load_scorecard(path) == load_scorecard(str(path)) == card
    (tmp_path / "bom.json").write_text(json.dumps(card.to_dict()), "utf-8-sig")
    assert load_scorecard(tmp_path / "bom.json") == card


def test_files_that_are_no_cards(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"version: \xff")
    (tmp_path / "large.yaml").write_bytes(b"#" * 2_000_001)
    (tmp_path / "text.txt").write_text("version: v1")
    for name in (
        "v2",
        tmp_path / "none.yaml",
        tmp_path / "folder.yaml",
        tmp_path / "pipe.yaml",
        tmp_path / "text.txt",
    ):
        with pytest.raises(NotFoundError, match=r"name a shipped version \(v1\) or a .yaml or .json file"):
            load_scorecard(name)
    with pytest.raises(InputError, match="is not UTF-8 text"):
        load_scorecard(tmp_path / "latin.yaml")
    with pytest.raises(InputError, match="larger than 2,000,000 bytes"):
        load_scorecard(tmp_path / "large.yaml")
