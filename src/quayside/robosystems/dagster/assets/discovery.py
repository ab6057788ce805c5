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

#: Jobs, and what `define_asset_job` makes, whose class has no public name.
_JOBS: Final = (dg.JobDefinition, type(dg.define_asset_job("any")))
ADAPTER_ASSETS: Final = [sec_company_facts, quickbooks_ledger, plaid_transactions]


def with_custom(base: dg.Definitions, package: ModuleType = assets) -> dg.Definitions:
    """`base` and everything (assets, checks, jobs, schedules, sensors) in the ``custom_*`` modules of a package."""
    found = discover(package)
    problems, merged = dict(found.problems), base
    for name, module in found.modules.items():
        try:
            wider = dg.Definitions.merge(merged, _definitions_in(module))
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


def _definitions_in(module: ModuleType) -> dg.Definitions:
    """Whatever a module holds for Dagster, `Definitions` of its own included."""
    values = list(vars(module).values())
    return dg.Definitions.merge(
        *(value for value in values if isinstance(value, dg.Definitions)),
        dg.Definitions(
            assets=dg.load_assets_from_modules([module]),
            asset_checks=dg.load_asset_checks_from_modules([module]),
            jobs=[v for v in values if isinstance(v, _JOBS)],
            schedules=[v for v in values if isinstance(v, dg.ScheduleDefinition)],
            sensors=[v for v in values if isinstance(v, dg.SensorDefinition)],
        ),
    )
