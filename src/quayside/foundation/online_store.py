"""Values served in milliseconds by key: the port, and its implementation on Valkey or Redis.

A *view* is a named set of features of one entity ("party_features"); a key is that entity's id. What is written
replaces what the key held in that view. Belongs here: nothing that knows what a feature means.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

from quayside.foundation.errors import ServiceUnavailableError, sentence

if TYPE_CHECKING:
    import redis

#: How long a key lives after it was last written. Batches come daily; a week survives long holidays of a feed, and a
#: party that is in no batch any more is gone after it, instead of being served for ever.
TTL_SECONDS: Final = 7 * 24 * 3600
#: Keys per round trip: large enough that latency does not matter, small enough that no reader waits long for its turn.
CHUNK: Final = 500

Scalar = str | int | float | bool | None
T = TypeVar("T")


class OnlineStore(Protocol):
    """What a system may do with served values."""

    def write(self, view: str, rows: Iterable[tuple[str, Mapping[str, Scalar]]]) -> int:
        """Replace the values of each (key, values); rows written."""
        ...

    def read(self, view: str, keys: Sequence[str], features: Sequence[str]) -> list[dict[str, Scalar] | None]:
        """For each key, in order, the asked features (None for one it lacks); None for a key that is not there."""
        ...

    def remove(self, view: str, keys: Iterable[str]) -> int:
        """Remove keys; how many were there."""
        ...


class RedisOnlineStore:
    """`OnlineStore` on one hash per key. A reader sees a key's old values or its new ones, never a mixture."""

    def __init__(self, client: redis.Redis, ttl_seconds: int = TTL_SECONDS) -> None:
        self._client = client
        self._ttl_seconds = ttl_seconds

    def write(self, view: str, rows: Iterable[tuple[str, Mapping[str, Scalar]]]) -> int:
        written = 0
        for chunk in _chunks(rows):
            with _errors(), self._client.pipeline(transaction=True) as pipe:
                for key, values in chunk:
                    name = _name(view, key)
                    pipe.delete(name)
                    # The marker keeps a key without any value apart from a key that is not there.
                    pipe.hset(
                        name,
                        mapping={"": "", **{k: json.dumps(v, allow_nan=False) for k, v in values.items()}},
                    )
                    pipe.expire(name, self._ttl_seconds)
                pipe.execute()
            written += len(chunk)
        return written

    def read(self, view: str, keys: Sequence[str], features: Sequence[str]) -> list[dict[str, Scalar] | None]:
        found: list[dict[str, Scalar] | None] = []
        for chunk in _chunks(keys):
            with _errors(), self._client.pipeline(transaction=False) as pipe:
                for key in chunk:
                    pipe.hmget(_name(view, key), ["", *features])
                answers = cast("list[list[bytes | None]]", pipe.execute())
            found += [
                None
                if marker is None
                else {f: None if v is None else json.loads(v) for f, v in zip(features, values, strict=True)}
                for marker, *values in answers
            ]
        return found

    def remove(self, view: str, keys: Iterable[str]) -> int:
        removed = 0
        for chunk in _chunks(keys):
            with _errors():
                removed += cast("int", self._client.delete(*(_name(view, key) for key in chunk)))
        return removed


def _name(view: str, key: str) -> str:
    # Views are ours and hold no colon; keys are data and may hold anything.
    if not view or ":" in view:
        raise ValueError(f"View {view!r} has to be a name without a colon.")
    return f"quayside:online:{view}:{key}"


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


@contextmanager
def _errors() -> Iterator[None]:
    """The client's errors as ours."""
    import redis

    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise ServiceUnavailableError(f"The online store does not answer: {sentence(error)}") from None
