"""Resources of the DataLoader location: each hands on a plain object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from quayside.foundation.settings import load_settings

if TYPE_CHECKING:
    from quayside.dataloader.control.client import LakebaseClient


class LakebaseResource(dg.ConfigurableResource):
    """``lakebase``: the control database, by LAKEBASE_HOST or the platform's own PostgreSQL."""

    def get_client(self) -> LakebaseClient:
        """A client; it opens nothing until it is asked something."""
        from quayside.dataloader.control.client import LakebaseClient

        return LakebaseClient(load_settings())
