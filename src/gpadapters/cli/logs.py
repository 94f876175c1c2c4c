"""How log lines look: one line each, on stderr, whatever they hold.

Rules of this file: what a record carries as `gp_...` is a field of its own; nothing that a caller sent can end a
line or move a cursor.
"""

import json
import logging
import sys
from datetime import UTC, datetime

_PREFIX = "gp_"
_LONGEST = 8192


def set_up(form: str) -> None:
    """Send the log to stderr in *form*, `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


class Text(logging.Formatter):
    """One line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as time, level, message and fields."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return _one_line(f"{_time(record)} {record.levelname:<7} {record.getMessage()}{fields}{self._why(record)}")

    def _why(self, record: logging.LogRecord) -> str:
        return f" | {self.formatException(record.exc_info)}" if record.exc_info else ""


class Json(logging.Formatter):
    """One JSON object for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as an object with `ts`, `level`, `logger`, `msg` and its fields."""
        line: dict[str, object] = {
            "ts": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage()[:_LONGEST],
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-_LONGEST:]
        return json.dumps(line, default=str)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name.removeprefix(_PREFIX): value for name, value in vars(record).items() if name.startswith(_PREFIX)}


def _one_line(text: str) -> str:
    plain = text.isprintable()  # as nearly every line is, and much faster to find out
    escaped = text if plain else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return escaped if len(escaped) <= _LONGEST else f"{escaped[: _LONGEST - 3]}..."
