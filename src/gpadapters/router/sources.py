"""Where the endpoints of pools come from: arguments, or a file that is read again.

Rules of this file: a source yields whole values, first what is now and then every change; what cannot be read leaves
the last value in place and is told.
"""

import logging
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from gpadapters.router.fleet import Address, Endpoints
from gpadapters.router.following import MAX_BYTES, POLL_S, followed
from gpcore.errors import ConfigError, InvalidError

log = logging.getLogger(__name__)


class EndpointSource(Protocol):
    """Follow where the endpoints of all pools are."""

    def endpoints(self) -> AsyncIterator[Endpoints]:
        """Yield the endpoints of every pool, again whenever they change."""
        ...


class Fixed:
    """Endpoints that never change."""

    def __init__(self, pools: Iterable[str]) -> None:
        """Read *pools*, each NAMESPACE=URL; a namespace may be named again for another endpoint."""
        self._endpoints = read_pools(pools)

    async def endpoints(self) -> AsyncIterator[Endpoints]:
        """Yield them once."""
        yield self._endpoints


class FromFile:
    """Endpoints of a JSON file: an object of lists of URLs, by namespace."""

    def __init__(self, path: Path, *, every_s: float = POLL_S) -> None:
        """Read nothing yet."""
        self._path = path
        self._every_s = every_s

    async def endpoints(self) -> AsyncIterator[Endpoints]:
        """Yield what the file says, again whenever that changes and makes sense."""
        async for found in followed(self._path, read_endpoints, every_s=self._every_s):
            if isinstance(found, InvalidError):
                log.warning("%s is not used: %s", self._path, found)
            else:
                yield found


def read_pools(pools: Iterable[str]) -> Endpoints:
    """Return the endpoints that arguments NAMESPACE=URL name, or raise ConfigError with every problem."""
    found: dict[str, list[str]] = {}
    problems = []
    for text in pools:
        namespace, equals, url = text.partition("=")
        if not equals or not namespace or not url:
            problems.append(f"a pool is NAMESPACE=URL: {ascii(text)[:200]}")
        else:
            found.setdefault(namespace, []).append(url)
    return _addresses(found, problems)


def read_endpoints(data: bytes) -> Endpoints:
    """Return the endpoints that a file names, or raise ConfigError with every problem."""
    if len(data) > MAX_BYTES:
        raise ConfigError([f"more than {MAX_BYTES} bytes"])
    try:
        named = msgspec.json.decode(data, type=dict[str, list[str]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError([str(error)]) from error
    return _addresses(named, [])


def _addresses(named: dict[str, list[str]], problems: list[str]) -> Endpoints:
    found: dict[str, tuple[Address, ...]] = {}
    for namespace, urls in named.items():
        addresses: list[Address] = []
        for url in urls:
            try:
                addresses.append(Address.parse(url))
            except InvalidError as error:
                problems.extend(f"{namespace}: {problem}" for problem in error.problems)
        found[namespace] = tuple(dict.fromkeys(addresses))
    if problems:
        raise ConfigError(problems)
    return found
