"""The simulated world: planners, the API server, the network between them, an operator, callers, and strangers.

Rules of this file: everything that is not certain is drawn from one generator, so a seed is a whole history. One action
is taken at a time, and the checks look on at every revision of the API server.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from itertools import accumulate
from random import Random
from typing import Any

import attrs

from gpcore.budgets import Budget
from gpcore.control import Rules, State
from gpcore.decisions import explain
from gpcore.events import (
    Apply,
    Decided,
    Effect,
    Event,
    LeaseChanged,
    LedgerLoaded,
    Listed,
    Mark,
    Marked,
    Reply,
    Save,
    Seen,
    StepApplied,
    StepRefused,
    StepUnknown,
    Submitted,
)
from gpcore.fences import Fence
from gpcore.ledger import Ledger
from gpcore.plans import Step
from gpcore.pools import Deployment, ParticipantId, Role
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.wire.ledgers import ledger as read_ledger
from gpcore.wire.ledgers import ledger_document
from tests.simulation.api import ADAPTERS, GRAPHS, Answer, Change, Json, ModelApi
from tests.simulation.checks import BreachError, Checks
from tests.simulation.hands import POINTER, Ask, Library, Said, Tell, fence_of
from tests.simulation.host import EPOCH_S, LEDGER, Host
from tests.simulation.operator import Operator
from tests.simulation.swarm import Swarm

NAMESPACE = "ns"

FLEET: dict[str, tuple[tuple[str, int, int], ...]] = {
    "a": (("prefill", 1, 2), ("decode", 2, 1)),
    "b": (("prefill", 1, 1), ("decode", 1, 2)),
    "c": (("decode", 2, 1),),
}
"""The deployments, each with its components: their role, the GPUs of a replica, and the replicas to begin with."""

BY_ADAPTER = "b"
"""The deployment whose pools are written through scaling adapters."""

LONGEST = 400
"""The longest line of a trace, in characters."""

MOST_REPLICAS = 4
DEADLINE_S = 60.0
TTL_S = 120.0

REPEATED = 0.2
"""How often a caller asks for what was asked for already."""

AT_HOME = 0.7
"""How often a caller asks for the deployment that it mostly asks for."""

COPIED = 0.4
"""How often a request that was refused on its way arrives all the same."""

ROUNDS = 400
"""How many rounds everything has to come to rest in, when nothing goes wrong any more."""

SETTLING = 3
"""How many rounds a played history gives to each wish."""

CALM = 5
"""How many rounds without a change are rest."""


@attrs.frozen
class Plot:
    """The one thing that goes wrong in a history in which all else goes well; each counts from 1, None: it does not.

    The planner dies right after it has performed the effect *crash_after*, whose request is lost where *lost*. The
    change *unheard* of a watch is not shown. The read *stale_read* shows what was there *back* changes earlier. The
    write *denied* is refused for want of a right.
    """

    crash_after: int | None = None
    lost: bool = False
    unheard: int | None = None
    stale_read: int | None = None
    back: int = 0
    denied: int | None = None


@attrs.define(eq=False)
class Message:
    """A request on its way, or its answer (*said*). *awaited*: somebody waits for it."""

    host: Host
    life: int
    ask: Ask
    tell: Tell
    why: Effect | None = None
    awaited: bool = True
    late: bool = False
    said: Said | None = None


class World:
    """One history. *tap* is told of every line worth telling."""

    def __init__(self, swarm: Swarm, *, tap: Callable[[str], None] | None = None) -> None:
        self.swarm, self.tap = swarm, tap
        self.rng = Random(f"world {swarm.seed}")  # noqa: S311 - the same for the same seed
        self.counts: Counter[str] = Counter()
        self.library = Library()
        self.news: dict[str, list[Change]] = {GRAPHS: [], ADAPTERS: [], LEDGER[0]: []}
        self.api = ModelApi(self._committed)
        self.operator = Operator(self.api, self.rng)
        self.requests: list[Message] = []
        self.answers: list[Message] = []
        self.lease_news: list[tuple[Host, int, LeaseChanged]] = []
        self.leader: Host | None = None
        self.asked: list[ScaleRequest] = []
        self.steps = self.effects = self.minted = self.sequence = 0
        self.plot = Plot()
        self.tamper: Callable[[Ask], Ask] = lambda ask: ask
        self.readable: list[int] = []
        self.reads = self.heard = self.writes = self.last_apply = 0
        self._create()
        total = sum(g * n for parts in FLEET.values() for _, g, n in parts)
        floor = max(0, total - 3) if swarm.floor else 0
        self.budget = Budget(floor, total + swarm.slack)
        rules = Rules(budget=self.budget, intent_ttl_s=TTL_S, deadline_s=DEADLINE_S)
        self.checks = Checks(self)
        self.hosts = [Host(f"h{number}", rules, self, str(swarm.seed)) for number in range(swarm.hosts)]
        self.operator.stale = bool(swarm.on("stale relay"))
        self.operator.stuck = bool(swarm.on("stuck pods"))
        self._actions = self._weighted()
        for host in self.hosts:
            self._boot(host)

    # running ---------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let everything happen that may, then nothing bad any more, and look whether all comes to rest."""
        deeds = [deed for deed, _ in self._actions]
        until = list(accumulate(weight for _, weight in self._actions))
        for _ in range(self.swarm.steps):  # drawn one by one: a shorter run is the beginning of a longer one
            self.rng.choices(deeds, cum_weights=until)[0]()
        self.heal()

    def heal(self) -> None:
        """Let nothing go wrong any more, until everything has come to rest."""
        self.plot = Plot()
        self.tell("--- nothing goes wrong any more")
        self.swarm = attrs.evolve(self.swarm, faults={})
        self.operator.stale = self.operator.stuck = False
        self.operator_settles()
        held_back = [message for message in self.requests if not message.awaited]
        self.requests = [message for message in self.requests if message.awaited]
        for host in self.hosts:
            host.paused = False
            if host.alive:
                host.lose_thread()  # what the news did not tell is found when everything is listed again
            else:
                self._boot(host)
        if self.swarm.lease == "on" and (self.leader is None or not self.leader.alive):
            self._elect(self.hosts[0])
        self._rest()
        if held_back:
            self._late(held_back)
            self._rest()

    def _rest(self) -> None:
        calm = 0
        for _ in range(ROUNDS):
            calm = calm + 1 if not self._round() else 0
            if calm > CALM and not self.checks.busy:
                break
        self.checks.rested()

    def play(self, wishes: Sequence[tuple[str, Mapping[str, int]]], plot: Plot) -> None:
        """Let callers ask for one of the *wishes* after the other, all going well but for the *plot*."""
        self.plot = plot
        for _ in range(SETTLING):
            self._round()
        for name, replicas in wishes:
            targets = tuple(Target(Role(role), count) for role, count in replicas.items())
            request = ScaleRequest(Claimed("caller"), ParticipantId(NAMESPACE, name), targets)
            if awake := [host for host in self._awake() if host.state.leading]:
                self.submit(awake[0], request)
            for _ in range(SETTLING):
                self._restarts()
                self._round()
        self.heal()

    def _late(self, messages: list[Message]) -> None:
        """Let everything arrive that was held back, now that all is done: no object may change for it.

        A save may land, if nobody has saved since; it is one that somebody was told to be uncertain.
        """
        before = [len(self.news[kind]) for kind in (GRAPHS, ADAPTERS)]
        for message in messages:
            self.requests.append(message)
            self._arrive(len(self.requests) - 1)
        after = [len(self.news[kind]) for kind in (GRAPHS, ADAPTERS)]
        self.checks.that(after == before, "S5: a request that came after all was done has changed something")

    def _round(self) -> bool:
        """Let everybody do everything once; say whether anything has changed."""
        before = (self.api.revision, [host.state.operations for host in self.hosts])
        for deed in (self._exchange, self._spread, self._lease_told, self.operator_settles):
            deed()
        for host in self._awake():
            host.tick(1.0)
        self._exchange()
        self._spread()
        return before != (self.api.revision, [host.state.operations for host in self.hosts])

    def _exchange(self) -> None:
        """Let every request arrive and every answer return, and those that follow from them."""
        for _ in range(ROUNDS):
            while self.requests:
                self._arrive(0)
            while self.answers:
                self._return(0)
            if not self.requests:
                return
        raise BreachError("L: requests and answers follow each other for ever")

    def _spread(self) -> None:
        for host in self._awake():
            while kinds := host.lags():
                self.heard += 1
                host.hear(kinds[0], lost=self.heard == self.plot.unheard)

    def _lease_told(self) -> None:
        while self.lease_news:
            self._tell_lease(0)
        for host in self._awake():
            if host.state.leading != (self.swarm.lease == "off" or host is self.leader):
                self._hear_lease(host)

    def operator_settles(self) -> None:
        """Let the operator do all that is to be done."""
        for graph in self.api.listed(GRAPHS)[1]:
            self.checks.as_actor("operator", lambda graph=graph: self.operator.settle(graph))  # type: ignore[misc]

    # actions ---------------------------------------------------------------------------------------------------------

    def _weighted(self) -> list[tuple[Callable[[], None], float]]:
        on = self.swarm.on
        return [
            (self._some_arrives, 14.0),
            (self._some_returns, 14.0),
            (self._some_hears, 12.0),
            (self._some_ticks, 4.0),
            (self._operates, 6.0),
            (self._some_asks, 1.0 + self.swarm.clients),
            (self._some_lease_told, 3.0),
            (self._restarts, 2.0),
            (self._resumes, 2.0),
            (self._lease_again, 0.5),
            (self._request_lost, on("requests get lost")),
            (self._request_held, on("requests come late")),
            (self._request_doubled, on("requests come twice")),
            (self._answer_lost, on("answers get lost")),
            (self._server_error, on("server errors")),
            (self._denied, on("denials") / 3),
            (self._news_lost, on("news gets lost")),
            (self._watch_breaks, on("watches break") / 2),
            (self._compacts, on("compaction") / 3),
            (self._crashes, on("crashes") / 2),
            (self._pauses, on("pauses") / 2),
            (self._lease_moves, on("the lease moves")),
            (self._lease_lies, on("the lease lies")),
            (self._clock_jumps, on("clocks jump") / 2),
            (self._meddles, on("strangers")),
            (self._deletes, on("deletions") / 3),
            (self._unfences, on("fences removed") / 3),
        ]

    def _pick(self, many: list[Any]) -> int:
        if not many:
            return -1
        return self.rng.randrange(len(many)) if self.swarm.on("out of order") else 0

    def _some_arrives(self) -> None:
        if (at := self._pick(self.requests)) >= 0:
            self._arrive(at)

    def _some_returns(self) -> None:
        ready = [at for at, message in enumerate(self.answers) if not message.host.paused]
        if (at := self._pick(ready)) >= 0:
            self._return(ready[at])

    def _some_hears(self) -> None:
        lagging = [(host, kind) for host in self._awake() for kind in host.lags()]
        if lagging:
            host, kind = self.rng.choice(lagging)
            host.hear(kind)

    def _some_ticks(self) -> None:
        if awake := self._awake():
            self.rng.choice(awake).tick(self.rng.choice((0.1, 1.0, 1.0, 5.0)))

    def _operates(self) -> None:
        if graphs := self.api.listed(GRAPHS)[1]:
            graph = self.rng.choice(graphs)
            self.checks.as_actor("operator", lambda: self.operator.act(graph))

    def _some_asks(self) -> None:
        """Let a caller ask for something, or for the same again, of any planner."""
        if not (awake := self._awake()):
            return
        again = self.asked and self.rng.random() < REPEATED
        request = self.rng.choice(self.asked[-6:]) if again else self._request()
        self.submit(self.rng.choice(awake), request)

    def submit(self, host: Host, request: ScaleRequest) -> str:
        """Let *host* hear *request*; return its id."""
        self.asked.append(request)
        self.minted += 1
        key = f"r{self.minted}"
        self.checks.asked(key, host)
        self.tell(f"{host.name} is asked {key}: {_shown(request)}")
        host.happen(Submitted(key, request, host.now))
        return key

    def _request(self) -> ScaleRequest:
        caller = self.rng.randrange(self.swarm.clients)
        name = sorted(FLEET)[caller % len(FLEET)] if self.rng.random() < AT_HOME else self.rng.choice(sorted(FLEET))
        parts = list(FLEET[name])
        some = self.rng.sample(parts, self.rng.randint(1, len(parts)))
        targets = tuple(Target(Role(role), self.rng.randint(0, MOST_REPLICAS)) for role, _, _ in some)
        request_id = sequence = None
        if caller % 2:  # every other caller tells its requests apart
            self.sequence += self.rng.choice((1, 1, 1, 2))
            request_id, sequence = f"q{self.sequence - self.rng.choice((0, 0, 0, 1))}", self.sequence
        return ScaleRequest(
            Claimed(f"caller-{caller}"),
            ParticipantId(NAMESPACE, name),
            targets,
            request_id=request_id,
            sequence=sequence,
        )

    def _awake(self) -> list[Host]:
        return [host for host in self.hosts if host.alive and not host.paused]

    # the network -----------------------------------------------------------------------------------------------------

    def send(self, host: Host, ask: Ask, tell: Tell, why: Effect | None) -> None:
        """Let a request set off."""
        self.requests.append(Message(host, host.life, ask, tell, why))

    def _arrive(self, at: int) -> None:
        message = self.requests.pop(at)
        message.said = self.checks.as_actor(message, lambda: self._served(message.ask))
        if isinstance(message.why, Apply) and message.ask.verb == "PATCH":
            self.last_apply = self.writes
        if message.late and message.ask.verb != "GET" and message.said.answer.status >= HTTPStatus.BAD_REQUEST:
            self.counts["a late or doubled request was refused"] += 1
        if message.awaited:
            self.answers.append(message)

    def _return(self, at: int) -> None:
        message = self.answers.pop(at)
        self._told(message, message.said)

    def _told(self, message: Message, said: Said | None) -> None:
        message.awaited = False
        if message.host.alive and message.host.life == message.life:
            if self.tap is not None:
                answer = "nothing" if said is None else f"{int(said.answer.status)} at {said.revision}"
                self.tell(f"{message.host.name} is told {answer} of {_named(message.ask)}")
            message.tell(said)

    def _served(self, ask: Ask) -> Said:
        api = self.api
        if ask.verb in ("LIST", "GET"):
            return self._read(ask)
        self.writes += 1
        if self.writes == self.plot.denied:
            return Said(Answer(HTTPStatus.FORBIDDEN, {"message": "no right to"}), api.revision)
        ask = self.tamper(ask)
        match ask.verb:
            case "POST":
                answer = api.create(ask.key, ask.body)
            case "PUT":
                answer = api.replace(ask.key, ask.body)
            case _:
                answer = api.patch(ask.key, ask.body)
        return Said(answer, api.revision)

    def _read(self, ask: Ask) -> Said:
        """Return what a read shows: what is there, or now and then what was there earlier."""
        self.reads += 1
        self.readable.append(len(self.news[ask.key[0]]))
        at = self._earlier(ask)
        if ask.verb == "LIST":
            revision, items = self.api.listed(ask.key[0], at=at)
            self.counts["a stale list was served"] += at is not None
            return Said(Answer(HTTPStatus.OK, {"items": items}), revision)
        earlier = None if at is None else self.api.read(ask.key, at=at)
        if earlier is None:
            return Said(self.api.get(ask.key), self.api.revision)
        self.counts["a stale ledger was read"] += ask.key == LEDGER
        return Said(Answer(HTTPStatus.OK, earlier), self.api.revision)

    def _earlier(self, ask: Ask) -> int | None:
        """Return the revision that a read is to show, where it is not to show the newest."""
        if self.reads == self.plot.stale_read:
            changes = [change.revision for change in self.news[ask.key[0]]]
            return changes[-1 - self.plot.back] if self.plot.back < len(changes) else None
        fault = "stale lists" if ask.verb == "LIST" else "stale ledgers" if ask.key == LEDGER else ""
        if not self._now_and_then(fault):
            return None
        return self.rng.randint(max(self.api.oldest, 1), self.api.revision)

    def _now_and_then(self, fault: str) -> bool:
        strength = self.swarm.on(fault)
        return bool(strength) and self.rng.random() < strength / 4

    def _request_lost(self) -> None:
        if (at := self._pick(self.requests)) >= 0:
            message = self.requests.pop(at)
            if message.awaited:
                self._told(message, None)

    def _request_held(self) -> None:
        """Let somebody give up waiting for a request that arrives later, or much later."""
        awaited = [message for message in self.requests if message.awaited]
        if awaited:
            message = self.rng.choice(awaited)
            self.requests.remove(message)
            self.requests.append(message)
            message.late = True
            self._told(message, None)

    def _request_doubled(self) -> None:
        writes = [message for message in self.requests if message.ask.verb not in ("GET", "LIST")]
        if writes:
            message = self.rng.choice(writes)
            self.requests.append(attrs.evolve(message, awaited=False, late=True))

    def _answer_lost(self) -> None:
        if (at := self._pick(self.answers)) >= 0:
            self._told(self.answers.pop(at), None)

    def _server_error(self) -> None:
        """Let the server fail, before or after it has done what was asked."""
        if (at := self._pick(self.requests)) < 0:
            return
        message = self.requests.pop(at)
        if self.rng.random() < 0.5:
            self.checks.as_actor(message, lambda: self._served(message.ask))
        if message.awaited:
            body = {"message": "etcdserver: request timed out"}
            self._told(message, Said(Answer(HTTPStatus.INTERNAL_SERVER_ERROR, body), self.api.revision))

    def _denied(self) -> None:
        writes = [at for at, message in enumerate(self.requests) if message.ask.verb in ("PATCH", "PUT", "POST")]
        if writes:
            message = self.requests.pop(self.rng.choice(writes))
            if (
                message.ask.verb == "PATCH" and self.rng.random() < COPIED
            ):  # whoever refused it was not the API server, and had passed it on
                self.requests.append(attrs.evolve(message, awaited=False, late=True))
            if message.awaited:
                self._told(message, Said(Answer(HTTPStatus.FORBIDDEN, {"message": "no right to"}), self.api.revision))

    def _news_lost(self) -> None:
        lagging = [(host, kind) for host in self._awake() for kind in host.lags()]
        if lagging:
            host, kind = self.rng.choice(lagging)
            host.hear(kind, lost=True)

    def _watch_breaks(self) -> None:
        if awake := self._awake():
            self.rng.choice(awake).lose_thread()

    def _compacts(self) -> None:
        self.api.compact(self.api.revision)

    def oldest(self) -> int:
        """Return the oldest revision that a watch can go on from."""
        return self.api.oldest

    # planners --------------------------------------------------------------------------------------------------------

    def _boot(self, host: Host) -> None:
        host.boot()
        self.tell(f"{host.name} begins its life {host.life}")
        if self.swarm.lease == "on" and (self.leader is None or not self.leader.alive):
            self._elect(host)
        else:
            self._hear_lease(host)

    def _elect(self, leader: Host) -> None:
        self.leader = leader
        for host in self.hosts if hasattr(self, "hosts") else [leader]:
            self._hear_lease(host)

    def _hear_lease(self, host: Host) -> None:
        """Let *host* hear who leads; without a lease everybody does, on purpose."""
        if self.swarm.lease == "off":
            news = LeaseChanged(leading=True, exclusive=self.swarm.hosts == 1)
        else:
            leading = host is self.leader
            news = LeaseChanged(leading=leading, leader="" if leading or self.leader is None else self.leader.name)
        self.lease_news.append((host, host.life, news))

    def _tell_lease(self, at: int) -> None:
        host, life, event = self.lease_news.pop(at)
        if host.alive and host.life == life:
            self.tell(f"{host.name} hears {event}")
            host.happen(event)

    def _some_lease_told(self) -> None:
        ready = [at for at, (host, _, _) in enumerate(self.lease_news) if not host.paused]
        if ready:
            self._tell_lease(ready[0])

    def _lease_again(self) -> None:
        if self.swarm.lease == "on" and self.leader is not None and self.leader.alive:
            self._hear_lease(self.leader)

    def _lease_moves(self) -> None:
        alive = [host for host in self.hosts if host.alive]
        if self.swarm.lease == "on" and alive:
            self._elect(self.rng.choice(alive))

    def _lease_lies(self) -> None:
        host = self.rng.choice(self.hosts)
        leading = self.rng.random() < 0.7
        self.lease_news.append((host, host.life, LeaseChanged(leading=leading, leader="" if leading else "nobody")))

    def _crashes(self) -> None:
        if alive := [host for host in self.hosts if host.alive]:
            self.crash(self.rng.choice(alive))

    def crash(self, host: Host) -> None:
        """End *host*, whose requests are still on their way."""
        self.tell(f"{host.name} dies")
        self.counts["a planner died"] += 1
        for message in self.requests:
            if message.host is host:
                message.awaited, message.late = False, True
        self.answers = [message for message in self.answers if message.host is not host]
        host.crash()
        if self.leader is host and self.swarm.lease == "on":
            others = [one for one in self.hosts if one.alive]
            self.leader = None
            if others:
                self._elect(self.rng.choice(others))

    def _restarts(self) -> None:
        if dead := [host for host in self.hosts if not host.alive]:
            self._boot(self.rng.choice(dead))

    def _pauses(self) -> None:
        if awake := self._awake():
            host = self.rng.choice(awake)
            host.paused = True
            self.tell(f"{host.name} stands still")

    def _resumes(self) -> None:
        if paused := [host for host in self.hosts if host.paused]:
            self.rng.choice(paused).paused = False

    def _clock_jumps(self) -> None:
        host = self.rng.choice(self.hosts)
        host.wall_offset = EPOCH_S + self.rng.choice((0.0, 3600.0, -3600.0, 3e8, -3e8))
        host.now += self.rng.choice((0.0, 0.0, 100.0))

    # strangers -------------------------------------------------------------------------------------------------------

    def _meddles(self) -> None:
        """Let a stranger change the replicas of something."""
        kind = self.rng.choice((GRAPHS, GRAPHS, ADAPTERS))
        if not (objects := self.api.listed(kind)[1]):
            return
        obj = self.rng.choice(objects)
        key = (kind, obj["metadata"]["namespace"], obj["metadata"]["name"])
        value = self.rng.randint(0, MOST_REPLICAS)
        where = "/spec/replicas"
        if kind == GRAPHS:
            where = f"/spec/components/{self.rng.randrange(len(obj['spec']['components']))}/replicas"
        self.tell(f"a stranger sets {where} of {key[2]} to {value}")
        write = [{"op": "add", "path": where, "value": value}]
        self.checks.as_actor("stranger", lambda: self.api.patch(key, write))

    def _deletes(self) -> None:
        """Let a stranger delete a deployment with its adapters, or create it anew."""
        name = self.rng.choice(sorted(FLEET))
        key = (GRAPHS, NAMESPACE, name)
        if self.api.get(key).status != HTTPStatus.OK:
            self.tell(f"a stranger creates {name} anew")
            self.checks.as_actor("stranger", lambda: self._create_one(name))
            return
        self.tell(f"a stranger deletes {name}")
        self.counts["a deployment was deleted"] += 1
        for adapter in self.api.listed(ADAPTERS)[1]:
            if adapter["spec"]["dgdRef"]["name"] == name:
                metadata = adapter["metadata"]
                self.checks.as_actor("stranger", lambda n=metadata["name"]: self.api.delete((ADAPTERS, NAMESPACE, n)))  # type: ignore[misc]
        self.checks.as_actor("stranger", lambda: self.api.delete(key))

    def _unfences(self) -> None:
        """Let a stranger take our mark from something, as `kubectl replace` does."""
        kind = self.rng.choice((GRAPHS, ADAPTERS))
        if objects := self.api.listed(kind)[1]:
            obj = self.rng.choice(objects)
            if fence_of(obj):
                key = (kind, obj["metadata"]["namespace"], obj["metadata"]["name"])
                self.tell(f"a stranger takes the fence of {key[2]} away")
                self.checks.as_actor("stranger", lambda: self.api.patch(key, [{"op": "remove", "path": POINTER}]))

    def _create(self) -> None:
        for name in FLEET:
            self._create_one(name)

    def _create_one(self, name: str) -> None:
        parts = [_component(role, gpus, count, adapted=name == BY_ADAPTER) for role, gpus, count in FLEET[name]]
        annotations = {"annotations": {"nvidia.com/enable-metrics": "true"}} if name != "c" else {}
        graph: Json = {"metadata": annotations, "spec": {"components": parts}}
        made = self.api.create((GRAPHS, NAMESPACE, name), graph)
        if name == BY_ADAPTER:
            for role, _, count in FLEET[name]:
                spec = {"replicas": count, "dgdRef": {"name": name, "componentName": role}}
                self.api.create((ADAPTERS, NAMESPACE, f"{name}-{role}"), {"metadata": {}, "spec": spec})
        self.operator.begin(made.body)

    # looking on ------------------------------------------------------------------------------------------------------

    def tell(self, line: str) -> None:
        """Tell whoever listens."""
        if self.tap is not None:
            self.tap(line)

    def stepped(self, host: Host, event: Event, before: State) -> None:
        """Count, and look on."""
        self.steps += 1
        if self.tap is not None:
            self.tell(f"    {host.name} <- {_brief(event)}")
        self.checks.stepped(host, event, before)

    def performed(self, host: Host, effect: Effect) -> None:
        """Look on, and now and then let the planner die right after."""
        self.effects += 1
        if self.tap is not None:
            self.tell(f"    {host.name} -> {_brief(effect)}")
        self.checks.performed(host, effect)
        chance = self.swarm.on("crashes between effects")
        if self.plot.crash_after == self.effects:
            if self.plot.lost:
                self.requests = [message for message in self.requests if message.why is not effect]
            self.crash(host)
        elif chance and self.rng.random() < chance / 100:
            self.crash(host)

    def packed(self, ledger: Ledger) -> Json:
        """Return *ledger* as it is stored: as a document, or as it is, which is faster."""
        return ledger_document(ledger) if self.swarm.packed else {"ledger": ledger}

    def unpacked(self, spec: Json) -> Ledger:
        """Return the ledger that is stored as *spec*."""
        return read_ledger(spec) if "ledger" not in spec else spec["ledger"]

    def _committed(self, change: Change) -> None:
        self.news[change.key[0]].append(change)
        if hasattr(self, "checks"):
            self.checks.committed(change)


def _component(role: str, gpus: int, replicas: int, *, adapted: bool) -> Json:
    limits = {"limits": {"nvidia.com/gpu": str(gpus)}}
    pod = {"spec": {"containers": [{"name": "main", "resources": limits}]}}
    part: Json = {"name": role, "type": role, "replicas": replicas, "podTemplate": pod}
    return part | ({"scalingAdapter": {}} if adapted else {})


def _shown(request: ScaleRequest) -> str:
    wishes = ", ".join(f"{target.role.value}={target.replicas}" for target in request.targets)
    return f"{request.participant.name} {wishes}"


def _named(ask: Ask) -> str:
    return f"{ask.verb} {ask.key[0]} {ask.key[2]}".strip()


def _brief(thing: Event | Effect) -> str:
    """Return what happened, in one short line."""
    told = _write_told(thing) or _ledger_told(thing) or _answer_told(thing) or repr(thing)
    return told if len(told) < LONGEST else f"{told[:LONGEST]}..."


def _write_told(thing: Event | Effect) -> str | None:
    match thing:
        case Apply(operation, step) | StepApplied(operation, step):
            return f"{type(thing).__name__}({operation}, {_changes(step)}, {_fence(step.fence)})"
        case StepRefused(operation, step, detail) | StepUnknown(operation, step, detail):
            return f"{type(thing).__name__}({operation}, {_changes(step)}, {_fence(step.fence)}, {detail})"
        case Mark():
            return f"Mark({thing.key}, {thing.old[:4]} -> {thing.new[:4]})"
        case Marked(mark, absent, lost):
            return f"Marked({mark.key}, {mark.new[:4]}, absent={absent}, lost={lost})"
        case _:
            return None


def _ledger_told(thing: Event | Effect) -> str | None:
    match thing:
        case Save(ledger, expected):
            return f"Save(over {expected}: {_ledger(ledger)})"
        case LedgerLoaded():
            return f"LedgerLoaded({thing.version}: {_ledger(thing.ledger or Ledger())})"
        case Seen(deployment):
            return f"Seen({_deployment(deployment)})"
        case Listed(deployments):
            return f"Listed({'; '.join(map(_deployment, deployments))})"
        case _:
            return None


def _answer_told(thing: Event | Effect) -> str | None:
    match thing:
        case Submitted(key, request):
            return f"Submitted({key}, {_shown(request)})"
        case Decided(key, _, decision, operation):
            return f"Decided({key}, {explain(decision)}, {operation})"
        case Reply(key, outcome):
            return f"Reply({key}, {type(outcome).__name__})"
        case _:
            return None


def _changes(step: Step) -> str:
    return ", ".join(f"{one.pool.participant.name}/{one.pool.role} {one.before} to {one.after}" for one in step.changes)


def _fence(fence: Fence | None) -> str:
    return "no fence" if fence is None else f"{fence.old[:4]} -> {fence.new[:4]} or {fence.kill[:4]}"


def _deployment(deployment: Deployment) -> str:
    pools = [
        f"{pool.key.role} {pool.replicas} (relayed {pool.relayed}, present {pool.present}) {(pool.fence or '')[:4]}"
        for pool in deployment.pools
    ]
    return f"{deployment.id.name}: {', '.join(pools)}"


def _ledger(ledger: Ledger) -> str:
    entries = [
        f"{entry.key.name.partition('/')[2]} {'+'.join(str(one.replicas) for one in entry.held)} {entry.fence[:4]}"
        + ("" if entry.reservation is None else f" [{_fence(entry.reservation.fence)} {entry.reservation.operation}]")
        for entry in sorted(ledger.entries.values(), key=lambda entry: entry.key)
    ]
    operations = [f"{one.id} escrow {one.escrow} dip {one.dip}" for one in ledger.operations.values()]
    return f"epoch {ledger.epoch}, {ledger.state}, {ledger.totals.charged} GPUs; {', '.join(entries)}; {operations}"
