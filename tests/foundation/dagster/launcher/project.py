"""The code location of the launcher's tests. Each test copies it into a folder of its own, so it imports nothing of ours.

What a job is to do comes in run tags: ``folder`` is where it leaves what it saw, and files there let it go on.
"""

import ctypes
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

HERE = Path(__file__).parent
SETTINGS = json.loads((HERE / "settings.json").read_text())
#: Module state: what a run changes, no other may see.
SEEN: list[str] = []
#: Used at import, so that NumPy's global generator has a state that a fork would copy.
FIRST = np.random.random()
#: What it does at import for tests of what must not be open, by name; only where the variable is set.
OPENED: list[Any] = []


def _open(what: str) -> None:
    match what:
        case "thread":
            threading.Thread(target=time.sleep, args=(600,), name="importer", daemon=True).start()
        case "socket":
            OPENED.append(importlib.import_module("socket").create_server(("127.0.0.1", 0)))
        case "channel":
            OPENED.append(importlib.import_module("grpc").insecure_channel("127.0.0.1:1"))
        case "duckdb":
            OPENED.append(importlib.import_module("duckdb").connect(":memory:", config={"threads": 1}))
        case "sqlite":
            OPENED.append(importlib.import_module("sqlite3").connect(":memory:"))
        case "child":
            OPENED.append(subprocess.Popen(["sleep", "600"]))
            raise ValueError("it left a child and gave up")
        case "rewritten":
            cache = HERE / "cache.txt"
            cache.write_text(str(time.time_ns()))
            cache.read_text()
            cache.write_text(str(time.time_ns()))
        case "never":
            time.sleep(600)
        case "exit":
            sys.exit("it ends at import")


for name in os.environ.get("OPENS", "").split():
    _open(name)


def folder(context: dg.OpExecutionContext) -> Path:
    return Path(context.run.tags["folder"])


def write(path: Path, /, **facts: Any) -> None:
    """Appear at once with all of it."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(facts))
    new.replace(path)


def facts() -> dict[str, Any]:
    return {"pid": os.getpid(), "sid": os.getsid(0), "group": os.getpgrp(), "folder": str(Path.cwd())}


@dg.op
def look(context: dg.OpExecutionContext) -> None:
    """Note what this process sees, then change all of it."""
    threads = [
        threading.Thread(target=lambda: np.linalg.svd(np.random.default_rng(1).random((60, 60))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    product = np.ones((400, 400)) @ np.ones((400, 400))
    for thread in threads:
        thread.join()
    write(
        folder(context) / f"{context.run_id}.json",
        **facts(),
        seen=SEEN,
        left=os.environ.get("LEFT_BY_A_RUN"),
        random=random.random(),
        numpy=float(np.random.random()),
        product=float(product.sum()),
        settings=SETTINGS,
        preloaded="colorsys" in sys.modules,
        path=sys.path[0],
        signals=[signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGPIPE)],
        blocked=[str(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        children=_has_children(),
        descriptors=[_target(link) for link in Path("/proc/self/fd").iterdir()],
    )
    SEEN.append(context.run_id)
    os.environ["LEFT_BY_A_RUN"] = context.run_id
    os.chdir("/")


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # the one that listed them
        return ""


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


@dg.op
def count(context: dg.OpExecutionContext) -> None:
    """One line per execution."""
    with (folder(context) / "executions").open("a") as lines:
        lines.write(f"{context.run_id}\n")


@dg.op
def speak(context: dg.OpExecutionContext) -> None:
    print("from print")
    print("from print to stderr", file=sys.stderr)
    sys.stdout.flush()
    os.write(1, b"from C\n")
    subprocess.run(["sh", "-c", "echo from a child; echo from a child to stderr >&2"], check=True)
    context.log.info("from the logger")


@dg.op
def fail() -> None:
    raise ValueError("boom")


@dg.op
def leave(context: dg.OpExecutionContext) -> None:
    """End in the way the tag says."""
    print("last words", flush=True)
    match context.run.tags["how"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            sys.exit(int(context.run.tags["code"]))
        case "fault":
            ctypes.string_at(0)
        case _:
            os._exit(int(context.run.tags["code"]))


@dg.op
def hold(context: dg.OpExecutionContext) -> None:
    """Go on until the file `go` is there; cleans up when interrupted."""
    place = folder(context)
    write(place / f"{context.run_id}.started", **facts())
    try:
        while not (place / "go").exists():
            time.sleep(0.02)
    except BaseException as error:
        write(place / f"{context.run_id}.interrupted", error=type(error).__name__)
        raise


@dg.op
def resist(context: dg.OpExecutionContext) -> None:
    """Ignore every request to end, with a child that does so too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with subprocess.Popen(["sleep", "600"]) as child:
        write(folder(context) / f"{context.run_id}.started", **facts(), child=child.pid)


@dg.op
def block(context: dg.OpExecutionContext) -> None:
    """Wait in C for ever, so that no Python handler of a signal runs: a mutex locked twice."""
    write(folder(context) / f"{context.run_id}.started", **facts())
    mutex = ctypes.create_string_buffer(128)
    lock = ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)


@dg.op
def abandon(context: dg.OpExecutionContext) -> None:
    """Leave a child behind, in this session but in a process group of its own."""
    child = subprocess.Popen(["sleep", "600"], process_group=0)
    write(folder(context) / f"{context.run_id}.started", **facts(), child=child.pid)


@dg.op(retry_policy=dg.RetryPolicy(max_retries=2))
def flaky(context: dg.OpExecutionContext) -> None:
    if context.retry_number < 2:
        raise ValueError("not yet")


@dg.op
def second_time(context: dg.OpExecutionContext) -> None:
    """Fails the first time a run of this folder gets here, with the process gone."""
    mark = folder(context) / "was here"
    if not mark.exists():
        mark.touch()
        os._exit(7)


@dg.op
def fill(context: dg.OpExecutionContext) -> None:
    """Take memory until there is none."""
    write(folder(context) / f"{context.run_id}.started", **facts())
    taken = [bytearray(os.urandom(1 << 20)) for _ in range(4096)]
    context.log.info(f"{len(taken)} MB")


def job(*ops: dg.OpDefinition, name: str, executor: Any = dg.in_process_executor) -> dg.JobDefinition:
    return dg.GraphDefinition(name=f"{name}_job", node_defs=ops).to_job(executor_def=executor)


defs = dg.Definitions(
    metadata={"warm_launcher/preload": ["colorsys", "module_that_is_nowhere"]},
    jobs=[
        *(
            job(op, name=op.name)
            for op in (
                look,
                count,
                speak,
                fail,
                leave,
                hold,
                resist,
                block,
                abandon,
                flaky,
                second_time,
                fill,
            )
        ),
        job(hold, name="apart", executor=dg.multiprocess_executor),
        job(count, name="apart_short", executor=dg.multiprocess_executor),
    ],
)
