"""Names that break what is spliced, folded, cut or parsed. Every tried source and destination carries each of them."""

from __future__ import annotations

HOSTILE: list[str] = [
    "Robert'); DROP TABLE x;--",
    'double " quote',
    "back`tick",
    "[square] ]bracket",
    "back\\slash",
    "Grüße 表 ß 😀",
    "a" * 60,
    "select",
    "MixedCase",
    "with space",
    "line\nbreak",
    "percent %s %(x)s %",
    "dollar $1 $$ {brace} {0}",
    "semi;colon -- comment /* open",
    "dotted.name",
    "question ? :colon :1",
]
#: PostgreSQL cuts names at 63 bytes and MySQL at 64 characters; others take any.
LONG = "n" * 63
