"""Fixture `s3_settings`: moto's S3 over the wire. Import it where it is needed."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest
from tests.conftest import make_settings

from quayside.foundation.settings import Settings


@pytest.fixture(scope="module")
def s3_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A moto server in a process of its own, with a bucket ``lake``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 240
    while True:
        try:
            request = urllib.request.Request(f"{endpoint}/lake", method="PUT")
            urllib.request.urlopen(request, timeout=5).close()
            break
        except OSError:
            assert server.poll() is None, "moto's server ended"
            assert time.monotonic() < deadline, "moto's server does not answer"
            time.sleep(0.1)
    yield make_settings(
        QUAYSIDE_HOME=str(tmp_path_factory.mktemp("home")),
        AWS_ENDPOINT_URL=endpoint,
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="pl4nted-s3cret",
        AWS_REGION="eu-central-1",
    )
    server.kill()
    server.wait()
