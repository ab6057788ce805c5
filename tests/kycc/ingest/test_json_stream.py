"""The streaming reader says what Python's own reader says, wherever its blocks end."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quayside.foundation.errors import InputError
from quayside.kycc.ingest import json_stream
from quayside.kycc.ingest.json_stream import JsonStream, Member

pytestmark = pytest.mark.unit

ARRAYS = frozenset({"rows", "more"})
TEXT = st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from('"\\{}[],:\n'), max_size=12)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUE = st.recursive(
    SCALAR, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXT, v, max_size=3), max_leaves=6
)
ROWS = st.lists(st.dictionaries(TEXT, VALUE, max_size=4), max_size=6)


def parsed(text: str) -> Any:
    """The document as the stream gives it, put together again."""
    result: Any = {}
    for member in JsonStream(io.BytesIO(text.encode()), "'x'", ARRAYS):
        if isinstance(member, Member):
            result[member.key] = member.value
        else:
            table = [row for batch in member.batches for row in batch.to_pylist()]
            assert [row["position"] for row in table] == list(range(len(table)))
            rows = [json.loads(row["element"]) for row in table]
            if member.key is None:
                result = rows
            else:
                result[member.key] = rows
    return result


@pytest.mark.slow
@settings(max_examples=80)
@given(
    document=st.fixed_dictionaries({"rows": ROWS}, optional={"a": VALUE, "more": ROWS, "\\key": SCALAR})
    | ROWS,
    indent=st.sampled_from([None, 0, 2, "\t"]),
    ascii_only=st.booleans(),
    block=st.integers(3, 40),
)
def test_same_as_the_whole(document: Any, indent: int | str | None, ascii_only: bool, block: int) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "BLOCK", block)
        assert parsed(text) == document


@settings(max_examples=80)
@given(
    document=st.fixed_dictionaries({"rows": ROWS, "a": VALUE}), cut=st.floats(0, 1), block=st.integers(3, 40)
)
def test_every_truncation_is_noticed(document: Any, cut: float, block: int) -> None:
    text = json.dumps(document, ensure_ascii=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "BLOCK", block)
        with pytest.raises(InputError):
            parsed(text[: int(len(text) * cut * 0.999)])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"rows": [{}}', "has a } where rows should end with ]"),
        ('{"rows": [{},,{}]}', "rows row 2 is empty"),
        ('{"rows": [{}, 5]}', "rows row 2 is '5'"),
        ('{"rows": [{} {}], "a": 1}', None),
        ('{"a" 1}', "has no colon after the key 'a'"),
        ("{a: 1}", "has a member without a quoted key"),
        ('{"a": 1,}', "has a comma before its closing brace"),
        ('{"a": 1 "b": 2}', "is not valid JSON"),
        ('{"a": [1}', "ends in the middle"),
        ('{"a": 1]', "goes wrong after the member 'a'"),
        ('{"a": 1} x', "goes on after its end"),
        ("[{}] {}", "goes on after its end"),
    ],
)
def test_what_is_wrong_is_said(text: str, sentence: str | None) -> None:
    if sentence is None:  # left to the parser of the elements
        with pytest.raises(json.JSONDecodeError):
            parsed(text)
    else:
        with pytest.raises(InputError) as caught:
            parsed(text)
        assert sentence in str(caught.value)
