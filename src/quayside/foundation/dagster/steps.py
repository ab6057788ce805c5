"""How a step calls the domain: who is acting, and what a failure looks like."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from quayside.foundation import audit
from quayside.foundation.errors import PermanentError


@contextmanager
def domain_call(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Iterator[None]:
    """Audit rows written inside name the run. A `PermanentError` fails the step with its sentence and is not retried;
    other errors pass as they are."""
    with audit.acting_as(f"dagster:run:{context.run.run_id}"):
        try:
            yield
        except PermanentError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
