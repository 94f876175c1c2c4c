"""One planner of the simulation: the real `step`, and a shell that performs its effects in the simulated world.

Rules of this file: it does what the daemon's shell and the observer do, and nothing more. Effects are performed in
their order; what comes back is an event, which happens after those that are happening.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol, assert_never

from gpadapters.kubernetes.objects import Adapter, Graph
from gpcore.control import Rules, State, step
from gpcore.events import (
    Apply,
    Decided,
    Effect,
    Event,
    LedgerLoaded,
    LedgerMoved,
    LedgerSaved,
    LedgerUnread,
    LedgerUnsaved,
    Load,
    Mark,
    Marked,
    Reply,
    Save,
    StepApplied,
    StepRefused,
    StepUnknown,
    Tell,
    Ticked,
    Told,
)
from gpcore.fences import Mint
from gpcore.ledger import Ledger
from gpcore.ports import Absent, Applied, Applying, Refused, Unknown
from tests.simulation.api import ADAPTERS, GRAPHS, Change, Json, Key
from tests.simulation.hands import Ask, Hands, Library, Said, carry_out
from tests.simulation.hands import Tell as TellAnswer

LEDGER: Key = ("ledgers", "ns", "main")
KINDS = (GRAPHS, ADAPTERS)

EPOCH_S = 1_800_000_000.0
"""The wall-clock time at which the simulation begins, in seconds since 1970."""

RELIST_EVERY = 20
"""After how many ticks everything is listed anew, whatever the watch says."""

_UNDECIDED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS}


class Surroundings(Protocol):
    """What a planner needs of the simulated world."""

    library: Library
    news: dict[str, list[Change]]

    def send(self, host: "Host", ask: Ask, tell: TellAnswer, why: Effect | None) -> None:
        """Let a request set off, *why* being the effect that it performs."""
        ...

    def stepped(self, host: "Host", event: Event, before: State) -> None:
        """Take note that an event has happened to *host*."""
        ...

    def performed(self, host: "Host", effect: Effect) -> None:
        """Take note that *host* has performed *effect*; it may end there."""
        ...

    def packed(self, ledger: Ledger) -> Json:
        """Return *ledger* as it is stored."""
        ...

    def unpacked(self, spec: Json) -> Ledger:
        """Return the ledger that is stored as *spec*."""
        ...

    def oldest(self) -> int:
        """Return the oldest revision that a watch can go on from."""
        ...


class Host:
    """A planner that can crash, pause, and begin anew."""

    def __init__(self, name: str, rules: Rules, around: Surroundings, seed: str) -> None:
        self.name, self.rules, self._around, self._seed = name, rules, around, seed
        self.life = 0
        self.alive = self.paused = False
        self.wall_offset = EPOCH_S
        self.now = 0.0
        self._begin()

    def _begin(self) -> None:
        self.state = State(self.rules, mint=Mint(f"{self._seed}/{self.name}/{self.life}"))
        self._inbox: deque[Event] = deque()
        self._stepping = False
        self._hands = Hands(self._around.library, self.happen)
        self._awaited = set(KINDS)
        self._asked: set[str] = set()
        self._certain = False
        self._cursor = dict.fromkeys(KINDS, 0)
        self._loading = False
        self._ticks = 0

    def boot(self) -> None:
        """Start with an empty memory."""
        self.life += 1
        self.alive, self.paused = True, False
        self._begin()
        self._list_all()

    def crash(self) -> None:
        """End at once; what is under way goes on without it."""
        self.life += 1
        self.alive = self.paused = False
        self._inbox.clear()

    # what happens to it ----------------------------------------------------------------------------------------------

    def happen(self, event: Event) -> None:
        """Take *event* in, and do what follows from it."""
        if not self.alive:
            return
        self._inbox.append(event)
        if self._stepping:
            return
        self._stepping, life = True, self.life
        try:
            while self._inbox and self.life == life:
                self._step(self._inbox.popleft())
        finally:
            if self.life == life:
                self._stepping = False

    def _step(self, event: Event) -> None:
        before, life = self.state, self.life
        transition = step(before, event)
        self.state = transition.state
        self._around.stepped(self, event, before)
        for effect in transition.effects:
            self._perform(effect)
            self._around.performed(self, effect)
            if self.life != life:
                return

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self._ticks += 1
        if self._ticks % RELIST_EVERY == 0:
            self._list_all()
        for kind in sorted(self._awaited - self._asked):
            self._list(kind)
        self.happen(Ticked(self.now, self.now + self.wall_offset))

    def lags(self) -> list[str]:
        """Return the kinds of which there is news that it has not heard."""
        news = self._around.news
        return [kind for kind in KINDS if kind not in self._awaited and self._cursor[kind] < len(news[kind])]

    def hear(self, kind: str, *, lost: bool = False) -> None:
        """Take in the next change that the watch of *kind* shows, or miss it."""
        change = self._around.news[kind][self._cursor[kind]]
        if change.revision < self._around.oldest():
            self.lose_thread()
            return
        self._cursor[kind] += 1
        if lost:
            return
        cache, obj = self._hands.cache, self._around.library.read(change.key, change.obj)
        gone = change.kind == "DELETED"
        if isinstance(obj, Graph):
            cache.changed(cache.graphs.removed(obj) if gone else cache.graphs.seen(obj))
        else:
            cache.changed(cache.adapters.removed(obj) if gone else cache.adapters.seen(obj))

    def lose_thread(self) -> None:
        """Take note that changes may be missed, and list everything anew."""
        if self._certain:
            self._certain = False
            self._hands.cache.uncertain()
        self._awaited = set(KINDS)
        self._list_all()

    # what it knows of the cluster ------------------------------------------------------------------------------------

    def _list_all(self) -> None:
        for kind in KINDS:
            if kind not in self._asked:
                self._list(kind)

    def _list(self, kind: str) -> None:
        self._asked.add(kind)
        self._post(Ask("LIST", (kind, "ns", "")), lambda said: self._listed(kind, said), why=None)

    def _listed(self, kind: str, said: Said | None) -> None:
        self._asked.discard(kind)
        if said is None or said.answer.status != HTTPStatus.OK:
            self._awaited.add(kind)  # the next tick asks again
            return
        library, cache = self._around.library, self._hands.cache
        found = [library.read((kind, "ns", ""), obj) for obj in said.answer.body["items"]]
        if kind == GRAPHS:
            cache.changed(cache.graphs.listed("ns", [one for one in found if isinstance(one, Graph)]))
        else:
            cache.changed(cache.adapters.listed("ns", [one for one in found if isinstance(one, Adapter)]))
        log = self._around.news[kind]
        self._cursor[kind] = len(log)
        while self._cursor[kind] and log[self._cursor[kind] - 1].revision > said.revision:
            self._cursor[kind] -= 1
        self._awaited.discard(kind)
        if not self._awaited and not self._certain:
            self._certain = True
            cache.whole()

    # what it does ----------------------------------------------------------------------------------------------------

    def _post(self, ask: Ask, tell: TellAnswer, *, why: Effect | None) -> None:
        self._around.send(self, ask, tell, why)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Apply(_, one):
                self._carry_out(effect, self._hands.executor.apply(one), partial(self._applied, effect))
            case Mark():
                self._carry_out(effect, self._hands.executor.mark(effect), partial(self._marked, effect))
            case Save(ledger, expected):
                body: Json = {"metadata": {}, "spec": self._around.packed(ledger)}
                if expected is not None:
                    body["metadata"] = {"resourceVersion": expected}
                self._post(Ask("POST" if expected is None else "PUT", LEDGER, body), self._saved, why=effect)
            case Load():
                if not self._loading:
                    self._loading = True
                    self._post(Ask("GET", LEDGER), self._loaded, why=effect)
            case Tell(ended):
                self.happen(Told(ended.id))
            case Decided() | Reply():
                pass
            case _:
                assert_never(effect)

    def _carry_out(self, effect: Effect, work: Any, done: Callable[[Applying], None]) -> None:  # noqa: ANN401 - a coroutine
        carry_out(work, partial(self._post, why=effect), done)

    def _applied(self, order: Apply, answer: Applying) -> None:
        match answer:
            case Applied():
                self.happen(StepApplied(order.operation, order.step))
            case Refused(detail) | Absent(detail):
                self.happen(StepRefused(order.operation, order.step, detail))
            case Unknown(detail):
                self.happen(StepUnknown(order.operation, order.step, detail))
            case _:
                assert_never(answer)

    def _marked(self, mark: Mark, answer: Applying) -> None:
        self.happen(Marked(mark, absent=isinstance(answer, Absent), lost=isinstance(answer, Unknown)))

    def _saved(self, said: Said | None) -> None:
        status = HTTPStatus.GATEWAY_TIMEOUT if said is None else said.answer.status
        if said is not None and status in (HTTPStatus.OK, HTTPStatus.CREATED):
            self.happen(LedgerSaved(said.answer.body["metadata"]["resourceVersion"]))
        elif status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
            self.happen(LedgerMoved())
        else:
            lost = status in _UNDECIDED or status >= HTTPStatus.INTERNAL_SERVER_ERROR
            self.happen(LedgerUnsaved(f"{int(status)}", lost=lost))

    def _loaded(self, said: Said | None) -> None:
        self._loading = False
        now, wall = self.now, self.now + self.wall_offset
        if said is not None and said.answer.status == HTTPStatus.OK:
            body = said.answer.body
            ledger = self._around.unpacked(body["spec"])
            self.happen(LedgerLoaded(ledger, body["metadata"]["resourceVersion"], now, wall))
        elif said is not None and said.answer.status == HTTPStatus.NOT_FOUND:
            self.happen(LedgerLoaded(None, None, now, wall))
        else:
            self.happen(LedgerUnread("no answer"))
