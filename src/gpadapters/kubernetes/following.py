"""Follow one kind of object in one namespace: list, watch, and list again when in doubt.

Rules of this file: a list is taken in whole or not at all. A watch that ends is resumed where it stood; whatever else
goes wrong (an expired version, a line that is not understood, no connection) makes the view uncertain until the next
whole list, and so does a kind that the server begins to serve. Where we may not watch, we list every few seconds, and
whenever somebody asks. Time and chance come in as arguments.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import attrs
import msgspec

from gpadapters.kubernetes.catalogue import GRAPHS, OK, ForbiddenError, granted, refusal
from gpadapters.kubernetes.rights import LIST, PATCH, WATCH, Right, Rights, allowed
from gpadapters.kubernetes.rounds import Rounds
from gpadapters.kubernetes.schema import Bookmark, Change, Page, decode
from gpadapters.kubernetes.session import Answer, LostError, Session, path_of
from gpadapters.kubernetes.tracks import Track, Tracked
from gpcore.errors import ObserveError
from gpcore.pools import ParticipantId

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Tracked)

_INSTANT_S = 1.0


@attrs.frozen
class Pace:
    """How often, and how long, things are tried.

    Every *relist_s* the cluster is listed as a whole, which repairs what a watch has missed without a sign. A watch
    that says nothing for *grace_s* after its time is over is half open. A kind that is not served is looked for again
    after *absent_s*. What may not be watched is listed every *poll_s*. Faults are waited out for *backoff_s*, each
    time twice as long up to *backoff_max_s*, between half and one and a half of it.
    """

    relist_s: float = 60.0
    watch_s: float = 290.0
    grace_s: float = 10.0
    absent_s: float = 1.0
    poll_s: float = 5.0
    backoff_s: float = 0.8
    backoff_max_s: float = 5.0
    page: int = 500
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: random.Random = attrs.field(factory=random.Random)

    def pause_s(self, tries: int) -> float:
        """Return how long to wait after *tries* faults in a row."""
        longest: float = min(self.backoff_s * 2.0 ** min(tries - 1, 30), self.backoff_max_s)
        return longest * self.chance.uniform(0.5, 1.5)


@attrs.frozen
class Kind(Generic[T]):
    """One kind of object. *absent* says what it means that the server does not serve it.

    An *optional* one need not be served: where the server has graphs and not these, there simply are none. Nor need
    we be allowed to list it. *written*: we want to write it, too. *selector* names the labels that make it ours.
    """

    plural: str
    read: Callable[[bytes | msgspec.Raw], T]
    absent: str
    optional: bool = False
    written: bool = True
    selector: str = ""


class Places(Protocol):
    """Where the API server serves things."""

    async def find(self, plural: str) -> bool:
        """Find *plural*, and say whether it is served."""

    def path(self, plural: str, namespace: str) -> str:
        """Return the path of a collection."""


class Listener(Protocol):
    """What a follower tells."""

    def changed(self, participants: set[ParticipantId]) -> None:
        """Take note that something of *participants* changed."""

    def followed(self) -> None:
        """Take note that a whole list was taken in."""

    def lost(self) -> None:
        """Take note that something may have been missed."""

    def limited(self, namespace: str) -> None:
        """Take note that what we may do in *namespace* is another than before."""


class Follower(Generic[T]):
    """Follow the objects of *kind* in *namespace* into *track*."""

    def __init__(
        self,
        kind: Kind[T],
        track: Track[T],
        *,
        namespace: str,
        session: Session,
        catalogue: Places,
        rights: Rights,
        listener: Listener,
        pace: Pace,
    ) -> None:
        self.name = f"{kind.plural} in namespace {namespace}"
        self._kind, self._track, self._namespace = kind, track, namespace
        self._session, self._catalogue, self._listener, self._pace = session, catalogue, listener, pace
        self._rights, self._rounds = rights, Rounds()
        self.begin()

    def begin(self) -> None:
        """Forget how far it was."""
        self.current = False  # whether a whole list was taken in and nothing was lost since
        self.polling = True  # whether changes come by lists alone: until a watch is open, and where none may be
        self.problem: str | None = None  # why not
        self.contact = self._pace.clock()  # when the server was last heard of
        self._version = ""
        self._due = 0.0
        self._rounds.give_up()

    async def refresh(self) -> None:
        """Return when all is taken in that was so when this was called, or when that cannot be had."""
        if self.polling and self.current:
            await self._rounds.next()

    async def run(self) -> None:
        """List and watch until cancelled."""
        tries = 0
        while True:
            began = self._pace.clock()
            try:
                rest_s = await self._list()
                await (self._watch() if rest_s is None else self._rest(rest_s))
            except (ObserveError, LostError, ValueError) as fault:
                tries = 1 if self._pace.clock() - began > self._pace.grace_s else tries + 1
                self._lose(str(fault))
                await self._pace.sleep(self._pace.pause_s(tries))

    async def _list(self) -> float | None:
        """Take in everything there is; return how long to rest before the next time, None where it can be watched."""
        self._rounds.begin()
        self._due = self._pace.clock() + self._pace.relist_s
        served = await self._catalogue.find(self._kind.plural)
        self.contact = self._pace.clock()
        if not served and not (self._kind.optional and await self._catalogue.find(GRAPHS)):
            self._lose(self._kind.absent)
            return self._pace.absent_s
        if self.current and served != (self._namespace in self._track.served):
            self._lose("the server begins to serve them" if served else "the server serves them no more")
        if not served:
            self._take_all(None)
            return self._pace.absent_s
        if self._kind.written:
            self._learn(PATCH, granted=await allowed(self._session, self._right(PATCH)))
        self._take_all(await self._all())
        return None if self._right(LIST) in self._rights else self._pace.relist_s

    async def _rest(self, seconds: float) -> None:
        """Look away from what shows nothing to us."""
        self.polling = False
        self._rounds.give_up()
        await self._pace.sleep(seconds)

    async def _all(self) -> list[T]:
        """Return what there is, as far as we may know."""
        try:
            objects = await self._pages()
        except ForbiddenError:
            self._learn(LIST, granted=False)
            if not self._kind.optional:
                raise
            return []
        self._learn(LIST, granted=True)
        return objects

    def _take_all(self, objects: list[T] | None) -> None:
        """Take in *objects*, all that there are; None: there can be none."""
        self._listener.changed(self._track.listed(self._namespace, objects))
        if self.problem is not None:
            log.info("following %s again", self.name)
        self.current, self.problem = True, None
        self._listener.followed()
        self._rounds.end()

    async def _pages(self) -> list[T]:
        objects: list[T] = []
        query: dict[str, str | int] = {"limit": self._pace.page}
        while True:
            answer = granted(await self._session.request("GET", self._path(query)))
            self.contact = self._pace.clock()
            page = decode(Page, answer.body)
            objects += map(self._kind.read, page.items or ())
            if not page.metadata.continue_:
                self._version = page.metadata.resource_version
                return objects
            query["continue"] = page.metadata.continue_

    async def _watch(self) -> None:
        """Watch, on as many connections as it takes, until the next list is due."""
        while (left := self._due - self._pace.clock()) > 0:
            began = self._pace.clock()
            try:
                heard = await self._stream(math.ceil(min(left, self._pace.watch_s)))
            except ForbiddenError:
                await self._poll()
                return
            if not heard and self._pace.clock() - began < _INSTANT_S:
                await self._pace.sleep(self._pace.pause_s(1))  # a server that closes at once would keep us busy

    async def _poll(self) -> None:
        """List again and again until it is time to try and watch."""
        self.polling = True
        self._learn(WATCH, granted=False)
        while (left := self._due - self._pace.clock()) > 0:
            await self._rounds.wait(min(left, self._pace.poll_s))
            if self._pace.clock() < self._due:
                self._rounds.begin()
                self._take_all(await self._pages())

    async def _stream(self, seconds: int) -> bool:
        """Take in what one connection delivers, and say whether it was anything."""
        heard = opened = False
        query: dict[str, str | int] = {
            "watch": 1,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": seconds,
            "resourceVersion": self._version,
        }
        try:
            async with self._session.lines(self._path(query), timeout_s=seconds + self._pace.grace_s) as (head, lines):
                granted(head)
                opened = True
                self.contact = self._pace.clock()
                self._watching()
                async for line in lines:
                    self.contact = self._pace.clock()
                    if line:
                        self._take(line)
                        heard = True
        except LostError:
            if not opened:
                raise
        return heard

    def _watching(self) -> None:
        """Take note that changes come by themselves from now on."""
        self._learn(WATCH, granted=True)
        self.polling = False
        self._rounds.give_up()

    def _take(self, line: bytes) -> None:
        change = decode(Change, line)
        match change.type:
            case "BOOKMARK":
                self._version = decode(Bookmark, change.object).metadata.resource_version
            case "ADDED" | "MODIFIED" | "DELETED":
                obj = self._kind.read(change.object)
                learn = self._track.removed if change.type == "DELETED" else self._track.seen
                self._version = obj.identity.version
                self._listener.changed(learn(obj))
            case "ERROR":
                raise ObserveError(refusal(Answer(OK, bytes(change.object))).message)
            case _:
                raise ValueError(f"an event of a type that is not known: {change.type[:80]!a}")

    def _lose(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("cannot follow %s: %s", self.name, problem)
        self.current, self.problem = False, problem
        self._listener.lost()
        self._rounds.give_up()

    def _right(self, verb: str) -> Right:
        return Right(verb, self._kind.plural, self._namespace)

    def _learn(self, verb: str, *, granted: bool) -> None:
        if self._rights.learn(self._right(verb), granted=granted):
            self._listener.limited(self._namespace)

    def _path(self, query: dict[str, str | int]) -> str:
        selected = {"labelSelector": self._kind.selector} if self._kind.selector else {}
        return path_of(self._catalogue.path(self._kind.plural, self._namespace), **query, **selected)
