"""Write the registry out: ``python -m quayside.kycc.features.document`` renews the two generated files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from quayside.foundation.settings import project_root
from quayside.kycc.features import registry
from quayside.kycc.features.feature import Feature
from quayside.kycc.features.moment import PARAMETERS
from quayside.kycc.features.validation import rule

JSON_FILE: Final = Path(__file__).with_name("definitions.json")
PAGE: Final = Path("docs/kycc/features.md")

_TITLES: Final = {"kyc": "The party itself", "transaction": "Its transactions", "network": "Its network"}
_INTRODUCTION: Final = """\
# Features

<!-- Generated from quayside.kycc.features.registry by `python -m quayside.kycc.features.document`. -->

Every feature is computed as of a stated moment, `as_of`, and nothing after it is read. The table comes from the registry
in `quayside.kycc.features`, as do the queries, the range checks and `definitions.json`.

All amounts are in base currency. A transaction belongs to its `party_id` alone. An edge of the network counts when it was
established at or before `as_of` and joins two different parties of the batch; repeated edges count once, downstream is from
→ to. Where the network is too dense for an exact answer in bounded memory, `network_is_estimate` marks the party and
`network_size_error` gives the relative standard error of its `network_size`.
"""


def as_json() -> str:
    """Text of `definitions.json`."""
    return json.dumps(registry.as_data(), indent=2, ensure_ascii=False) + "\n"


def as_markdown() -> str:
    """Text of the documentation page."""
    parts = [_INTRODUCTION]
    for source, title in _TITLES.items():
        lines = ["| feature | unit | range | window | no data | definition |", "|---|---|---|---|---|---|"]
        lines += [_row(feature) for feature in registry.FEATURES if feature.source == source]
        parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    names = "\n".join(f"| `${name}` | {meaning} |" for name, meaning in PARAMETERS.items())
    parts.append(f"## Names in the expressions\n\n| name | meaning |\n|---|---|\n{names}\n")
    return "\n".join(parts)


def _row(feature: Feature) -> str:
    no_data = "NULL" if feature.no_data is None else f"{feature.no_data:g}"
    cells = [f"`{feature.name}`", feature.unit, rule(feature), feature.window, no_data, feature.description]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    page = project_root() / PAGE
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(as_markdown(), encoding="utf-8")
    JSON_FILE.write_text(as_json(), encoding="utf-8")
