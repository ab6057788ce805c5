"""How an error of the domain becomes a failed step: one sentence, and retried only when trying again can help."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from quayside.foundation.errors import PermanentError


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn a `PermanentError` into a step failure that Dagster does not retry; other errors pass as they are."""
    try:
        yield
    except PermanentError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
