"""What settings look like: each reader takes a value and returns the setting, or raises `InvalidError`.

Rules of this file: a value is what a file holds, or what `number` makes of a flag's text. Nothing is converted
silently, so "16" is no number and 1 is no yes.
"""

import contextlib
import ipaddress
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import attrs

from gpcore.errors import InvalidError
from gpcore.pools import ParticipantId

Reader = Callable[[Any], Any]

OFF = -1
"""How the peer's flags say that there is no bound."""

_MAX_PORT = 65_535
_SHOWN = 80


@attrs.frozen
class Address:
    """Where to listen."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Say whether only this machine can connect."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bound(what: str) -> Reader:
    """Return the reader of a number of *what*, -1 being no bound."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < OFF:
            _refuse(f"must be a number of {what}, or -1 for no bound: {shown(value)}")
        return value

    return read


def seconds(value: object) -> float:
    """Read a length of time."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        _refuse(f"must be a number of seconds above 0: {shown(value)}")
    return float(value)


def switch(value: object) -> bool:
    """Read yes or no."""
    if not isinstance(value, bool):
        _refuse(f"must be true or false: {shown(value)}")
    return value


def text(value: object) -> str:
    """Read a text that says something."""
    if not isinstance(value, str) or not value.strip():
        _refuse(f"must be a text: {shown(value)}")
    return value


def url(value: object) -> str:
    """Read the URL of an HTTP server."""
    given = text(value)
    try:
        parts = urlsplit(given)
    except ValueError:  # a bracket without its other half
        _refuse(f"must be http://HOST:PORT or https://HOST:PORT: {shown(value)}")
    if parts.scheme not in ("http", "https") or not parts.hostname or any(one.isspace() for one in given):
        _refuse(f"must be http://HOST:PORT or https://HOST:PORT: {shown(value)}")
    return given


def path(value: object) -> Path:
    """Read the path of a file."""
    return Path(text(value))


@attrs.frozen
class LedgerPlace:
    """Where the ledger is kept: *kind* is auto, kubernetes, memory or sqlite; *file* belongs to the last."""

    kind: str
    file: Path | None = None

    def __str__(self) -> str:
        return self.kind if self.file is None else f"{self.kind}:{self.file}"


def ledger_place(value: object) -> LedgerPlace:
    """Read auto, kubernetes, memory or sqlite:FILE."""
    kind, colon, file = text(value).partition(":")
    if kind == "sqlite" and file:
        return LedgerPlace(kind, Path(file))
    if kind not in ("auto", "kubernetes", "memory") or colon:
        _refuse(f"must be auto, kubernetes, memory or sqlite:FILE: {shown(value)}")
    return LedgerPlace(kind)


def object_name(value: object) -> str:
    """Read what an object of Kubernetes may be called."""
    return ParticipantId("any", text(value)).name


def address(value: object) -> Address:
    """Read HOST:PORT."""
    host, colon, port = text(value).rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or len(port) > len(str(_MAX_PORT)) or int(port) > _MAX_PORT:
        _refuse(f"must be HOST:PORT with a port of 0 to {_MAX_PORT}: {shown(value)}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        _refuse(f"an IPv6 address is written in brackets, as in [::1]:8080: {shown(value)}")
    return Address(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104 (an empty host means that, and is checked)


def one_of(*choices: str) -> Reader:
    """Return the reader of one of these words."""

    def read(value: object) -> object:
        if value not in choices:
            _refuse(f"must be {' or '.join(choices)}: {shown(value)}")
        return value

    return read


def some_of(*choices: str) -> Reader:
    """Return the reader of one or more of these words, with commas between them."""

    def read(value: object) -> frozenset[str]:
        words = value.split(",") if isinstance(value, str) else []
        if not words or len(set(words)) < len(words) or not set(words) <= set(choices):
            _refuse(f"must be {' or '.join(choices)}, or several with commas between them: {shown(value)}")
        return frozenset(words)

    return read


def names(check: Callable[[str], object]) -> Reader:
    """Return the reader of distinct names in which *check* finds nothing wrong."""

    def read(value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            _refuse(f"must be a list of names: {shown(value)}")
        problems = [
            f"{shown(name)} is named {value.count(name)} times"
            for name in dict.fromkeys(map(str, value))
            if value.count(name) > 1
        ]
        problems += [problem for name in value for problem in _problems_of(name, check)]
        if problems:
            raise InvalidError(dict.fromkeys(problems))
        return tuple(value)

    return read


def kubernetes_namespace(name: str) -> None:
    """Refuse *name* where no Kubernetes namespace can be called so."""
    ParticipantId(name, "any")


def number(convert: Callable[[str], object]) -> Reader:
    """Return what makes a number of a flag's text; what is none stays text, and its reader refuses it.

    Python would take 1_000 and digits of other scripts too.
    """

    def read(value: str) -> object:
        with contextlib.suppress(ValueError):
            return convert(value) if value.isascii() and "_" not in value else value
        return value

    return read


def shown(value: object) -> str:
    """Return *value* as one short line of plain characters."""
    line = ascii(value)
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."


def _problems_of(name: object, check: Callable[[str], object]) -> tuple[str, ...]:
    if not isinstance(name, str):
        return (f"{shown(name)} is not a text",)
    if "$" in name:
        return (f"{shown(name)} holds a variable that was not filled in",)
    if "*" in name:
        return (f"{shown(name)} is a pattern, but names are compared as they are; leave the setting out to mean all",)
    try:
        check(name)
    except InvalidError as exc:
        return exc.problems
    return ()


def _refuse(problem: str) -> NoReturn:
    raise InvalidError([problem])
