"""The Kubernetes adapter's own code at work in the simulated world: its coroutines, run without an event loop.

A coroutine of the adapter awaits nothing but the network. Here each request is handed to the simulation, which goes on
with the coroutine when an answer comes, or throws into it that none does. So what is simulated is what runs in
production: what is sent for a step or a mark, what an answer means, and what is shown of the cluster when.
"""

import json
import random
from collections.abc import Callable, Coroutine, Generator
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import attrs

from gpadapters.kubernetes.cache import Cache, Feed
from gpadapters.kubernetes.catalogue import ADAPTERS as ADAPTERS_PLURAL
from gpadapters.kubernetes.catalogue import GRAPHS as GRAPHS_PLURAL
from gpadapters.kubernetes.catalogue import Catalogue
from gpadapters.kubernetes.executor import KubernetesExecutor
from gpadapters.kubernetes.following import Pace
from gpadapters.kubernetes.objects import Adapter, Graph, read_adapter, read_graph
from gpadapters.kubernetes.schema import FENCE
from gpadapters.kubernetes.session import Answer as Heard
from gpadapters.kubernetes.session import LostError, Session
from gpcore.ports import Applying, Observation
from tests.simulation.api import ADAPTERS, GRAPHS, Answer, Json, Key

DOMAIN = "ns/main"
"""The ledger whose fences are ours."""

POINTER = "/metadata/annotations/" + FENCE.replace("/", "~1")

_KINDS = {GRAPHS_PLURAL: GRAPHS, ADAPTERS_PLURAL: ADAPTERS}
_REASONS = {HTTPStatus.NOT_FOUND: "NotFound", HTTPStatus.CONFLICT: "Conflict", HTTPStatus.FORBIDDEN: "Forbidden"}


class Ask(NamedTuple):
    """A request as it is sent: the *verb*, what it is about, and its *body*."""

    verb: str
    key: Key
    body: Any = None


class Said(NamedTuple):
    """What the server answered, and its revision then."""

    answer: Answer
    revision: int


Tell = Callable[[Said | None], None]
"""Takes in an answer; None: none came."""


class Post(Protocol):
    """What carries requests."""

    def __call__(self, ask: Ask, tell: Tell) -> None:
        """Let a request set off; *tell* is called with what comes of it, if ever."""
        ...


def fence_of(obj: Json) -> str:
    """Return the fence that stands on *obj*, "" where none does."""
    return str(obj["metadata"].get("annotations", {}).get(FENCE, "")).rpartition(":")[2]


class Library:
    """Every revision of every object, written and read once, whoever reads it."""

    def __init__(self) -> None:
        self._raw: dict[str, bytes] = {}
        self._read: dict[str, Graph | Adapter] = {}

    def raw(self, obj: Json) -> bytes:
        """Return *obj* as the server sends it."""
        version = obj["metadata"]["resourceVersion"]
        raw = self._raw.get(version)
        if raw is None:
            raw = self._raw[version] = json.dumps(obj).encode()
        return raw

    def read(self, key: Key, obj: Json) -> Graph | Adapter:
        """Return what the adapter makes of *obj*."""
        version = obj["metadata"]["resourceVersion"]
        read = self._read.get(version)
        if read is None:
            reader: Callable[[bytes], Graph | Adapter] = read_graph if key[0] == GRAPHS else read_adapter
            read = self._read[version] = reader(self.raw(obj))
        return read


@attrs.frozen
class _Request:
    ask: Ask

    def __await__(self) -> Generator["_Request", Said | None, Said | None]:
        return (yield self)


class _Transport:
    """The part of `Session` that the executor uses."""

    def __init__(self, library: Library) -> None:
        self._library = library

    async def request(self, method: str, path: str, *, body: bytes | None = None, **_: object) -> Heard:
        key = _key_of(urlsplit(path).path)
        if key is None:
            return Heard(HTTPStatus.OK, json.dumps({"resources": [{"name": name} for name in _KINDS]}).encode())
        said = await _Request(Ask(method, key, None if body is None else json.loads(body)))
        if said is None:
            raise LostError("nobody answered")
        status = said.answer.status
        if status in (HTTPStatus.OK, HTTPStatus.CREATED):
            return Heard(status, self._library.raw(said.answer.body))
        refusal = {"reason": _REASONS.get(HTTPStatus(status), ""), "details": {"name": key[2]}, **said.answer.body}
        return Heard(status, json.dumps(refusal).encode())


def _key_of(path: str) -> Key | None:
    _, _, _, _, *rest = path.split("/")
    if not rest:
        return None
    _, namespace, plural, name = rest
    return (_KINDS[plural], namespace, name)


class Shown(Feed):
    """A feed whose consumer takes each observation at once."""

    def __init__(self, take: Callable[[Observation], None]) -> None:
        super().__init__()
        self._take = take

    def put(self, observation: Observation) -> None:
        self._take(observation)


class Hands:
    """The executor of one life of a planner, and the cache that its observer fills."""

    def __init__(self, library: Library, take: Callable[[Observation], None]) -> None:
        self.cache = Cache(domain=DOMAIN)
        self.cache.feed = Shown(take)
        session = cast(Session, _Transport(library))
        pace = Pace(clock=lambda: 0.0, sleep=_at_once, chance=random.Random(0))  # noqa: S311 - no pause is made
        self.executor = KubernetesExecutor(session, self.cache, catalogue=Catalogue(session), pace=pace)


def carry_out(work: Coroutine[Any, Any, Applying], post: Post, done: Callable[[Applying], None]) -> None:
    """Run *work* until it has to wait for an answer, and go on when that comes; *done* takes its result."""

    def go_on(said: Said | None) -> None:
        try:
            request = work.send(said)
        except StopIteration as end:
            done(end.value)
        else:
            post(request.ask, go_on)

    go_on(None)


async def _at_once(_: float) -> None:
    """Let no time pass."""
