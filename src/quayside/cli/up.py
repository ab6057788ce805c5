"""``quayside up``: webserver and daemon with every code location, until Ctrl-C."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from quayside.foundation.dagster.graphql import Location, Webserver
    from quayside.foundation.dagster.services import Services
    from quayside.foundation.settings import Settings

READY_SECONDS: Final = 300.0
#: What each kind of process gets to end by itself before it is killed; a second Ctrl-C does not wait.
END_SECONDS: Final = 30.0


class _Stop(BaseException):
    """A signal asked us to end. Not an `Exception`: nothing on the way may take it for an error."""


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the webserver."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address the webserver listens on.")
@click.option(
    "--workspace",
    "-w",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Workspace file to load.  [default: workspace.yaml of the project]",
)
@click.option("--automate", is_flag=True, help="Switch on every schedule and sensor that ships switched off.")
@click.option("--check", is_flag=True, help="Start, see every location load, and stop again.")
@click.option("--verbose", "-v", is_flag=True, help="Show the services' logs here.")
def app(port: int, host: str, workspace: Path | None, automate: bool, check: bool, verbose: bool) -> None:
    """Start webserver and daemon with every code location, and the embedded servers they need.

    Ctrl-C stops runs in flight and every process started here; PostgreSQL and Valkey stay up (`quayside db stop`).
    """
    from quayside.foundation import logs
    from quayside.foundation.settings import load_settings, project_root

    settings = load_settings()
    logs.configure(settings.log_format)
    with _only_one(settings):
        _refuse_used_port(host, port)
        _start_servers(settings)

        from quayside.foundation.dagster.graphql import Webserver
        from quayside.foundation.dagster.services import Services, prepare_dagster_home

        if notice := prepare_dagster_home(settings):
            _say(notice)
        services = Services(settings, host, port, workspace or project_root() / "workspace.yaml")
        webserver = Webserver(f"http://{_reachable(host)}:{port}")
        code = 0
        try:
            with _signals():
                services.start()
                shown = _Follower(services.logs()) if verbose else None
                locations = _wait_until_ready(services, webserver, shown)
                code = _report(locations, webserver.url)
                if automate:
                    started = webserver.start_everything()
                    _say(
                        f"Switched on: {', '.join(started)}"
                        if started
                        else "Every schedule and sensor was on already."
                    )
                if not check and any(location.loaded for location in locations):
                    code = 0  # the rest can be mended and reloaded in the UI
                    _say(f"Logs are in {settings.home / 'logs'}. Ctrl-C stops everything.")
                    _watch(services, shown)
        except _Stop:
            code = code if check else 0
        finally:
            _end(services, webserver)
    sys.exit(code)


def _say(message: str) -> None:
    click.echo(message)
    sys.stdout.flush()


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Two daemons on one instance would fight over its schedules."""
    import os

    from quayside.foundation.errors import UsageError
    from quayside.foundation.processes import private_folder, try_lock

    private_folder(settings.home / "logs")  # and its home
    lock = try_lock(settings.home / "up.lock")
    if lock is None:
        raise UsageError(
            f"`quayside up` runs already on {settings.home}; stop it first, or set another QUAYSIDE_HOME."
        )
    try:
        yield
    finally:
        os.close(lock)


def _refuse_used_port(host: str, port: int) -> None:
    from quayside.foundation.errors import UsageError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(
                f"Port {port} on {host} cannot be used: {reason}. Choose another one with --port."
            ) from None


def _reachable(host: str) -> str:
    """An address of this machine on which a server that listens on ``host`` can be reached."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"  # noqa: S104 - compared, not bound
    return f"[{host}]" if ":" in host else host


def _start_servers(settings: Settings) -> None:
    """PostgreSQL with its schemas and Valkey, so that no code server has to wait for them."""
    from quayside.cli.db import registered_schemas
    from quayside.foundation.postgres import ensure_schema
    from quayside.foundation.valkey import redis_url

    for spec in registered_schemas():
        ensure_schema(settings, spec)
    redis_url(settings)


@contextmanager
def _signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP as `_Stop`, also where a shell's ``&`` had SIGINT ignored.

    Children started meanwhile get the default back, without which Dagster, which maps SIGTERM to whatever SIGINT does,
    could not be ended at all.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stop

    previous = {
        number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_until_ready(services: Services, webserver: Webserver, shown: _Follower | None) -> list[Location]:
    """Every location, once the webserver knows of each whether it loads."""
    from quayside.foundation.errors import ServiceUnavailableError

    _say("Starting the code servers, the webserver and the daemon …")
    deadline = time.monotonic() + READY_SECONDS
    problem = "nothing answered"
    while time.monotonic() < deadline:
        _fail_if_ended(services)
        if shown:
            shown.show()
        try:
            locations = webserver.locations()
        except ServiceUnavailableError as error:
            problem = str(error)
        else:
            if locations and not any(location.loading for location in locations):
                return locations
            problem = (
                f"still loading: {', '.join(location.name for location in locations if location.loading)}"
            )
        time.sleep(0.2)
    raise ServiceUnavailableError(
        f"Not ready after {READY_SECONDS:.0f} s ({problem}); see {services.settings.home}/logs."
    )


def _report(locations: list[Location], url: str) -> int:
    """Say what loaded and what did not; the exit code."""
    for location in locations:
        if location.error is not None:
            click.echo(f"Location {location.name} did not load: {location.error}", err=True)
    loaded = [location.name for location in locations if location.loaded]
    if loaded:
        _say(f"Loaded: {', '.join(loaded)}")
        _say(f"Dagster is at {url}")
    return 0 if len(loaded) == len(locations) else 1


def _watch(services: Services, shown: _Follower | None) -> None:
    """Until a signal, or until a child ends that nobody asked to."""
    while True:
        _fail_if_ended(services)
        if shown:
            shown.show()
        time.sleep(0.5)


def _fail_if_ended(services: Services) -> None:
    from quayside.foundation.embedded import tail
    from quayside.foundation.errors import ServiceUnavailableError
    from quayside.foundation.processes import telling_line

    if (ended := services.ended()) is not None:
        code = ended.process.returncode if ended.process else None
        raise ServiceUnavailableError(
            f"The {ended.name} ended by itself (exit code {code}): {telling_line(tail(ended.log))} See {ended.log}."
        )


def _end(services: Services, webserver: Webserver) -> None:
    """End everything in the order in which nothing new can start. A second Ctrl-C skips what is left to wait for."""
    hurry = False

    def patiently(step: Callable[[], object]) -> None:
        nonlocal hurry
        if hurry:
            return
        try:
            with _signals():
                step()
        except _Stop:
            hurry = True

    patiently(lambda: services.end("daemon", seconds=END_SECONDS))
    patiently(lambda: _end_runs(webserver))
    patiently(lambda: services.end("webserver", "code-", seconds=END_SECONDS))
    services.end("", seconds=0)
    services.end_leftovers(seconds=0 if hurry else 3)
    _say("Stopped.")


def _end_runs(webserver: Webserver) -> None:
    """Ask runs in flight to end, so that they are recorded as canceled instead of vanishing."""
    from quayside.foundation.errors import ServiceUnavailableError

    try:
        runs = webserver.runs_in_flight()
        if not runs:
            return
        _say(f"Stopping {len(runs)} run(s) in flight: {', '.join(sorted(set(runs.values())))} …")
        webserver.terminate(list(runs))
        deadline = time.monotonic() + END_SECONDS
        while webserver.runs_in_flight() and time.monotonic() < deadline:
            time.sleep(0.2)
    except ServiceUnavailableError:
        # It never came up, or died: then there is nobody to ask, and `end_leftovers` ends what runs.
        return


class _Follower:
    """New lines of the services' logs, each with the name of its service."""

    def __init__(self, logs: list[Path]) -> None:
        self._positions = {log: log.stat().st_size for log in logs}

    def show(self) -> None:
        for log, position in self._positions.items():
            with log.open("rb") as file:
                file.seek(position)
                text = file.read()
            whole, newline, _ = text.rpartition(b"\n")
            self._positions[log] = position + len(whole) + len(newline)
            for line in whole.decode("utf-8", "replace").splitlines():
                _say(f"{log.stem} | {line}")
