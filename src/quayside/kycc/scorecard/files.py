"""Scorecard files: YAML and JSON text, and the cards the package ships.

Reading is strict. A repeated key, an alias or a NaN is an error with one sentence, because a card that silently means
something else than it says is worse than none.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from quayside.foundation.errors import InputError, NotFoundError, sentence
from quayside.kycc.scorecard.card import Scorecard
from quayside.kycc.scorecard.document import card_from_dict

MAX_FILE_BYTES: Final = 2_000_000


def load_scorecard(source: str | Path) -> Scorecard:
    """Card of a packaged version (``"v1"``) or of a ``.yaml`` / ``.yml`` / ``.json`` file.

    Raises:
        NotFoundError: there is neither such a version nor such a file.
        InputError: the document is no valid scorecard.
    """
    if isinstance(source, str) and source in packaged_versions():
        return _packaged(source)
    path = Path(source)
    if path.suffix not in {".yaml", ".yml", ".json"} or not path.is_file():
        raise NotFoundError(
            f"There is no scorecard {str(source)!r}: name a shipped version ({', '.join(packaged_versions())}) "
            "or a .yaml or .json file."
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes, which no scorecard is.")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text.") from error
    return parse_scorecard(text, str(path), json_only=path.suffix == ".json")


def packaged_versions() -> tuple[str, ...]:
    """Versions the package ships."""
    folder = resources.files(__package__ or "")
    return tuple(sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml")))


def parse_scorecard(text: str, where: str, *, json_only: bool = False) -> Scorecard:
    """Card written in `text`; `where` names the document in errors."""
    data = _read_json(text, where) if json_only else read_yaml(text, where)
    if not isinstance(data, dict):
        raise InputError(f"{where}: a scorecard is a mapping with version and characteristics.")
    try:
        return card_from_dict(data)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


@lru_cache
def _packaged(version: str) -> Scorecard:
    text = resources.files(__package__ or "").joinpath(f"{version}.yaml").read_text("utf-8")
    return parse_scorecard(text, f"packaged scorecard {version}")


def _read_json(text: str, where: str) -> Any:
    def refuse_constant(name: str) -> Any:
        raise InputError(f"{where}: {name} is not a number a scorecard may hold.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise InputError(f"{where}: a key is written twice in one object.")
        return dict(pairs)

    try:
        return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON: {sentence(error)}.") from error


def read_yaml(text: str, where: str) -> Any:
    """Plain data of YAML text, read strictly; `where` names the document in errors.

    Raises:
        InputError: it is no YAML, repeats a key or uses an alias.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain data only, without what makes YAML surprising: aliases and repeated keys."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise InputError(f"{where}: YAML aliases (*name) are not allowed.")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            mapping = super().construct_mapping(node, deep=True)
            if len(mapping) < len(node.value):
                line = node.start_mark.line + 1
                raise InputError(
                    f"{where}: a key is written twice in the mapping that starts on line {line}."
                )
            return mapping

    try:
        return yaml.load(text, Loader)  # noqa: S506 - the loader is a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = getattr(error, "problem", None) or sentence(error)
        mark = getattr(error, "problem_mark", None)
        line = f" on line {mark.line + 1}" if mark else ""
        raise InputError(f"{where} is not valid YAML{line}: {problem}.") from error
