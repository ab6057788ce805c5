from __future__ import annotations

import pytest

from quayside.foundation.lake.types import for_delta, for_postgres

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "type_, postgres, expression",
    [
        ("VARCHAR", "text", '"c"'),
        ("TINYINT", "smallint", '"c"::SMALLINT'),
        ("UBIGINT", "numeric(20,0)", '"c"::DECIMAL(20,0)'),
        ("DECIMAL(18,2)", "numeric(18,2)", '"c"'),
        ("TIMESTAMP WITH TIME ZONE", "timestamptz", '"c"'),
        ("JSON", "jsonb", '"c"::VARCHAR'),
        ("ENUM('a', 'b')", "text", '"c"::VARCHAR'),
        ("VARCHAR[]", "text[]", '"c"::VARCHAR[]'),
        ("JSON[]", "jsonb", 'to_json("c")::VARCHAR'),
        ("INTEGER[][]", "jsonb", 'to_json("c")::VARCHAR'),
        ("STRUCT(a INTEGER)", "jsonb", 'to_json("c")::VARCHAR'),
        ("MAP(VARCHAR, INTEGER)", "jsonb", 'to_json("c")::VARCHAR'),
    ],
)
def test_postgres(type_: str, postgres: str, expression: str) -> None:
    assert for_postgres("c", type_) == (postgres, expression)


@pytest.mark.parametrize(
    "type_, expression",
    [
        ("VARCHAR", '"c"'),
        ("TIMESTAMP WITH TIME ZONE", '"c"'),
        ("TIMESTAMP WITH TIME ZONE[]", '"c"'),
        ("VARCHAR[]", '"c"'),
        ("JSON", '"c"::VARCHAR'),
        ("UINTEGER", '"c"::BIGINT'),
        ("ENUM('TIME', 'b')", '"c"::VARCHAR'),
        ("UUID[]", 'to_json("c")::VARCHAR'),
        ("STRUCT(a TIME, b INTEGER)", 'to_json("c")::VARCHAR'),
        ("STRUCT(a INTEGER)", '"c"'),
    ],
)
def test_delta(type_: str, expression: str) -> None:
    assert for_delta("c", type_) == expression


def test_names_are_quoted() -> None:
    assert for_postgres('a"b', "JSON")[1] == '"a""b"::VARCHAR'
