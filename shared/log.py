"""JSON lines: one object per event, to standard error and, where a folder is given, to a file.

A full disk must not stop serving: the first write that fails is said once, the rest are passed over.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any, Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({})))


class JsonLines(logging.Formatter):
    """Formats a record, with everything passed in `extra`, as one line of JSON."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "service": self._service,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class PatientFileHandler(logging.FileHandler):
    """A file handler that says once that its disk is full, and goes on without it."""

    _said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        if not self._said:
            self._said = True
            reason = sys.exc_info()[1]
            sys.stderr.write(f"{self.baseFilename}: cannot write the log ({reason}); going on without it\n")


def configure(service: str, folder: Path | None = None) -> logging.Logger:
    """Set up logging for one process and return its logger."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handlers.append(PatientFileHandler(folder / f"{service}.jsonl"))
        except OSError as wrong:
            sys.stderr.write(f"{folder}: cannot write the log ({wrong}); going on without it\n")
    for handler in handlers:
        handler.setFormatter(JsonLines(service))
    logger = logging.getLogger("cascade")
    logger.handlers[:] = handlers
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger
