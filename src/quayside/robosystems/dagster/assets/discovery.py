"""The location's definitions with those that forks add: modules called ``custom_*`` in this folder.

One that does not load, or does not fit beside the others, is left out and shown by its name: as a warning in the log, and as
an asset ``broken/<name>`` whose description says why. Nothing else suffers from it.
"""

import logging
from types import ModuleType
from typing import Final

import dagster as dg

from quayside.foundation.errors import sentence
from quayside.robosystems.adapters.discovery import discover
from quayside.robosystems.dagster import assets
from quayside.robosystems.dagster.assets.plaid import plaid_transactions
from quayside.robosystems.dagster.assets.quickbooks import quickbooks_ledger
from quayside.robosystems.dagster.assets.sec import sec_company_facts

_log = logging.getLogger(__name__)

ADAPTER_ASSETS: Final = [sec_company_facts, quickbooks_ledger, plaid_transactions]


def with_custom(base: dg.Definitions, package: ModuleType = assets) -> dg.Definitions:
    """`base` and everything (assets, checks, jobs, schedules, sensors) in the ``custom_*`` modules of a package."""
    found = discover(package)
    problems, merged = dict(found.problems), base
    for name, module in found.modules.items():
        try:
            wider = dg.Definitions.merge(merged, dg.load_definitions_from_module(module))
            dg.Definitions.validate_loadable(wider)
            merged = wider
        except Exception as error:  # noqa: BLE001 - somebody else's code: whatever is wrong with it is its problem
            problems[name] = f"{type(error).__name__}: {sentence(error)}"
    for name, problem in sorted(problems.items()):
        _log.warning("Custom module %s.%s is left out: %s", package.__name__, name, problem)
    broken = [
        dg.AssetSpec(
            ["broken", name],
            group_name="adapters",
            description=f"The module {package.__name__}.{name} does not load: {problem}",
            kinds={"broken"},
        )
        for name, problem in sorted(problems.items())
    ]
    return dg.Definitions.merge(merged, dg.Definitions(assets=broken)) if broken else merged
