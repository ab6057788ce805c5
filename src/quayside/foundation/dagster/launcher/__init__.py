"""The warm run launcher: runs start by a fork of a process that has the code loaded already.

Usable by any Dagster project on Linux; it imports nothing but Dagster and the standard library. `WarmRunLauncher` says how to
configure it, ``docs/launcher.md`` when to use it and when not. Who does what:

- `launcher`: what Dagster calls, in the daemon and the webserver.
- `servers`: the fork servers of one launcher, one per code location and loaded version.
- `server`: such a process: loads, checks with `openness` that it can be forked, forks.
- `worker`: the forked process of one run.
- `warden`: beside each server, with the database connection it must not have: crashes, cancellations from afar.
- `executor`: `forking_executor`, for jobs whose steps run in parallel; used by code locations, not by the launcher.
- `processes`, `table`, `protocol`, `sources`: what these share.
"""

from quayside.foundation.dagster.launcher.launcher import WarmRunLauncher

__all__ = ["WarmRunLauncher"]
