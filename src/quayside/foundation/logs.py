"""Logging of commands and services: text for people, JSON lines on request (``QUAYSIDE_LOG_FORMAT=json``).

Everything goes to standard error, since standard output belongs to a command's result. Secrets are taken out of the
finished line, so that messages, arguments and stack traces are all covered.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal

from quayside.foundation.secrets import redact

#: Attributes every record has; whatever else a caller passed as ``extra=`` goes into the JSON line.
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """``2026-11-20 02:00:00 INFO quayside.kycc.ingest: …``, times in UTC."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, UTC).strftime(datefmt or "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class JsonFormatter(logging.Formatter):
    """One object a line: ``time`` (ISO, UTC), ``level``, ``logger``, ``message``, ``error``, and every ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))
        line |= {
            key: redact(value) if isinstance(value, str) else value
            for key, value in record.__dict__.items()
            if key not in _STANDARD
        }
        return json.dumps(line, ensure_ascii=False, default=lambda value: redact(str(value)))


def configure(log_format: Literal["text", "json"] = "text", level: int = logging.INFO) -> None:
    """Send the log of this process to standard error. Called once by a command's entry point; a second call replaces
    the first, and handlers that others installed stay.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.set_name("quayside")
    root = logging.getLogger()
    for existing in [h for h in root.handlers if h.get_name() == "quayside"]:
        root.removeHandler(existing)
    root.addHandler(handler)
    logging.getLogger("quayside").setLevel(level)
