"""A loopback server that behaves like Slack: webhook and chat.postMessage, rate limits, faults and slowness."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from quayside.foundation import slack as slack_client

TOKEN = "xoxb-1234-secretsecret"
WEBHOOK_PATH = "/services/T000/B000/secretsecret"


@dataclass
class Slack:
    """What it received, and what it answers next: ("status", code), ("retry", seconds) or ("hang", seconds)."""

    url: str = ""
    token: str = TOKEN
    messages: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0
    next: deque[tuple[str, float]] = field(default_factory=deque)

    @property
    def webhook(self) -> str:
        return self.url + WEBHOOK_PATH

    @property
    def api(self) -> str:
        return self.url + "/api/"


@pytest.fixture
def slack_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slack]:
    """The server; calls by token go to it too."""
    slack = Slack()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            slack.requests += 1
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kind, value = slack.next.popleft() if slack.next else ("status", 200)
            if kind == "hang":
                time.sleep(value)
            if kind == "retry":
                self._answer(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": str(int(value))})
            elif kind == "status" and value != 200:
                self._answer(
                    int(value), {"ok": False, "error": "invalid_auth" if value < 500 else "fatal_error"}
                )
            elif self.path == WEBHOOK_PATH:
                self._accept(json.loads(body))
            elif self.path == "/api/chat.postMessage":
                if self.headers["Authorization"] != f"Bearer {TOKEN}":
                    self._answer(200, {"ok": False, "error": "invalid_auth"})
                    return
                if self.headers["Content-Type"].startswith("application/json"):
                    message = json.loads(body)
                else:
                    message = {key: values[0] for key, values in parse_qs(body.decode()).items()}
                    message["blocks"] = json.loads(message.get("blocks", "[]"))
                self._accept(message)
            else:
                self._answer(404, {"ok": False, "error": "no_service"})

        def _accept(self, message: dict[str, Any]) -> None:
            too_long = any(
                len(block.get("text", {}).get("text", "")) > (150 if block["type"] == "header" else 3000)
                for block in message.get("blocks") or []
            )
            if too_long:
                self._answer(400, {"ok": False, "error": "invalid_blocks"})
                return
            slack.messages.append(message)
            self._answer(200, {"ok": True, "channel": message.get("channel"), "ts": "1"})

        def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            content = b"ok" if self.path == WEBHOOK_PATH and status == 200 else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that gave up on a hanging answer

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    slack.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(slack_client, "API_URL", slack.api)
    try:
        yield slack
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
