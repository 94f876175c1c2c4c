"""What must be true at every revision, of every answer, and when all has come to rest.

Rules of this file: it looks at the API server, the pods and the answers, and believes the planners nothing. The ledger
is checked against itself, and held against what really is.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gpcore.control import State
from gpcore.decisions import AnotherBody, OldSequence, Rejected
from gpcore.events import Apply, Decided, Effect, Event, Failed, LedgerMoved, Mark, Reply, Succeeded
from gpcore.ledger import Entry, Ledger, ObjectKey, Reservation
from gpcore.operations import Operation
from gpcore.plans import Step
from gpcore.pools import ParticipantId
from tests.simulation.api import ADAPTERS, GRAPHS, Change, Json, Key
from tests.simulation.hands import fence_of
from tests.simulation.host import LEDGER, Host

if TYPE_CHECKING:
    from tests.simulation.world import World


TOLERANCE = 2
"""By how many GPUs a pairing may miss the floor: those of the largest replica of the fleet."""


class BreachError(AssertionError):
    """A promise was broken."""


class Checks:
    """Look on in one `World`."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._actor: Any = None
        self._ceiling = world.budget.ceiling or 0
        self._floor = world.budget.floor
        self._strict = world.swarm.strict
        self._relays = not world.swarm.on("stale relay")
        self._objects: dict[Key, Json] = {change.key: change.obj for change in world.api.log}
        self._raised = self._held_raised = 0
        self._ledger = Ledger()
        self._reserved: dict[str, tuple[ObjectKey, Reservation]] = {}
        self._killing: dict[str, tuple[ObjectKey, Reservation]] = {}
        self._landed: set[str] = set()
        self._written: dict[str, list[Step]] = {}
        self._began: dict[str, str] = {}
        self._over: set[str] = set()
        self._sequences: dict[str, int] = {}
        self._effects: dict[tuple[str, str], str] = {}
        self._waiting: dict[str, tuple[Host, int]] = {}
        self._carried: dict[str, str | None] = {}
        self.counts: Counter[str] = world.counts
        self.most = 0

    @property
    def busy(self) -> bool:
        """Say whether the ledger has something under way."""
        return bool(self._ledger.operations) or len(self._ledger.pending) > 0

    def that(self, true: object, problem: str) -> None:
        """Raise where something is not *true*."""
        if not true:
            raise BreachError(problem)

    def as_actor(self, actor: Any, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - a name or a message; whatever it returns
        """Let *actor* act, so that what comes of it is known to be its doing."""
        self._actor = actor
        try:
            result = act()
        finally:
            self._actor = None
        if actor == "operator":
            self._pods(self._sums()[1])
        elif not isinstance(actor, str):
            self._refused(actor.why, result)
        return result

    # every revision --------------------------------------------------------------------------------------------------

    def committed(self, change: Change) -> None:
        """Look at one revision."""
        if change.key == LEDGER:
            self._stored(self._world.unpacked(change.obj["spec"]))
            return
        before = self._objects.get(change.key)
        asked, held = self._sums() if self._actor == "stranger" else (0, 0)
        if change.kind == "DELETED":
            del self._objects[change.key]
        else:
            self._objects[change.key] = change.obj
        if self._actor == "stranger":
            asked_now, held_now = self._sums()
            self._raised += max(0, asked_now - asked)
            self._held_raised += max(0, held_now - held)
        elif self._actor != "operator":
            self._ours(self._actor.why, before, change.obj)
        self._bounds()

    def _bounds(self) -> None:
        asked, held = self._sums()
        self.most = max(self.most, asked)
        self.that(asked <= self._ceiling + self._raised, f"S1: {asked} GPUs are asked for, above {self._ceiling}")
        self._pods(held)
        if self._strict:
            floor = self._floor - self._ledger.dip - TOLERANCE
            self.that(asked >= floor, f"S8: {asked} GPUs are asked for, below {self._floor}, dip {self._ledger.dip}")
            for key, obj in self._objects.items():
                self._within(key, obj)

    def _pods(self, held: int) -> None:
        if self._relays:
            self.that(held <= self._ceiling + self._held_raised, f"S6: {held} GPUs are held, above {self._ceiling}")

    def _ours(self, why: Effect | None, before: Json | None, after: Json) -> None:
        """Look at what a planner has written: it was on record before, and only once."""
        fence = fence_of(after)
        again = fence in self._landed and (
            self._strict or not isinstance(why, Mark)
        )  # what lost its fence may be marked again
        self.that(not again, f"S5: the fence {fence} landed twice")
        self._landed.add(fence)
        recorded = self._reserved.get(fence) or self._killing.get(fence)
        if recorded is None or before is None:
            raise BreachError(f"S21: what is written through {fence} is on no record")
        if isinstance(why, Apply):
            self.that("deletionTimestamp" not in before["metadata"], "S20: an object was written that is being deleted")
            afters = tuple((change.pool.role, change.after) for change in why.step.changes)
            self.that(recorded[1].afters == afters, f"S21: {afters} is written, {recorded[1].afters} on record")
            self._once(self._ledger.operations.get(why.operation))
            self._written.setdefault(why.operation, []).append(Step(why.step.changes))
            self._held_raised += self._overlap(before, why.step)
        else:
            self.that(before["spec"] == after["spec"], "a mark has changed replicas")
            killed = fence in self._killing
            self.counts["a kill won" if killed else "an object was adopted"] += 1

    def _overlap(self, before: Json, step: Step) -> int:
        """Return the GPUs that one write gives to a pool while another pool of the same write still holds them.

        The ceiling on what is asked for is kept; that one write takes and gives at once is how objects are written.
        """
        acquired = sum(max(0, change.gpus) for change in step.changes)
        draining = 0
        for change in step.changes:
            if change.releases:
                pods = self._world.operator.held(before, change.pool.role.value)
                draining += (max(change.before, pods) - change.after) * (change.gpus_per_replica or 0)
        return min(acquired, draining)

    def _refused(self, why: Effect | None, said: Any) -> None:  # noqa: ANN401 - the simulated answer
        if isinstance(why, Mark) and said.answer.status == HTTPStatus.UNPROCESSABLE_ENTITY and why.new in self._killing:
            shown = self._fence_at(self._killing[why.new][0])
            self.counts["a kill lost"] += shown == self._killing[why.new][1].fence.new

    def _stored(self, ledger: Ledger) -> None:
        """Look at one version of the ledger."""
        before, self._ledger = self._ledger, ledger
        charged = sum(_most(entry) for entry in ledger.entries.values())
        escrow = sum(operation.escrow for operation in ledger.operations.values())
        self.that(charged + escrow == ledger.totals.charged, "S3: the ledger's sum is not the sum of its entries")
        self.that(all(one.escrow >= 0 for one in ledger.operations.values()), "an escrow is negative")
        self.that(not self._strict or charged + escrow <= self._ceiling, f"S3: it promises {charged} + {escrow} GPUs")
        self.that(ledger.epoch >= before.epoch, "the epoch went back")
        for key in ledger.pending:
            reservation = ledger.entries[key].reservation
            if reservation is not None:
                self._reserved[reservation.fence.new] = (key, reservation)
                self._killing[reservation.fence.kill] = (key, reservation)
        self._ended(before, ledger)
        self._count(before, ledger)

    def _ended(self, before: Ledger, ledger: Ledger) -> None:
        """See that each operation that is no more has ended as a whole, or had not begun."""
        actor = self._actor.host.name
        for key, operation in ledger.operations.items():
            self.that(key not in self._over, f"S9: operation {key} had ended, and is under way again")
            if key not in self._began:
                self._began[key] = actor
                self._in_order(operation)
        ended = {one.id for one in ledger.ended}
        self._over |= ended
        for key, operation in before.operations.items():
            if key not in ledger.operations:
                self.that(key in ended or not operation.done, f"S9: operation {key} has vanished half done")
                if self._began.get(key) != actor:
                    self.counts["another planner finished an operation"] += 1

    def _in_order(self, operation: Operation) -> None:
        """See that no request begins anything that came after one with a higher number had begun something."""
        request = operation.request
        if request.sequence is not None:
            last = self._sequences.get(str(request.caller), -1)
            self.that(request.sequence > last, f"S12: {operation.id} counts {request.sequence}, after {last}")
            self._sequences[str(request.caller)] = request.sequence

    def _once(self, operation: Operation | None) -> None:
        """See that a request with an id has one effect, however often it is sent, and to whom."""
        if operation is None or operation.request.request_id is None:
            return
        key = (str(operation.request.caller), operation.request.request_id)
        first = self._effects.setdefault(key, operation.id)
        self.that(first == operation.id, f"S11: {key} was carried out by {first} and by {operation.id}")

    def _count(self, before: Ledger, ledger: Ledger) -> None:
        counts, operations = self.counts, ledger.operations.values()
        counts["a dip was recorded"] += any(one.dip for one in operations)
        counts["GPUs were in escrow"] += any(one.escrow for one in operations)
        counts["something was given back"] += any(one.returning for one in operations)
        counts["foreign GPUs above the ceiling were taken in"] += ledger.excess > 0
        counts["a bootstrap was taken over"] += not before.complete and 0 < before.epoch < ledger.epoch
        counts["a save that nobody heard of was stored"] += not self._actor.awaited
        counts["several decisions went into one save"] += len(ledger.operations) - len(before.operations) > 1

    # the fleet as it is ----------------------------------------------------------------------------------------------

    def _parts(self) -> list[tuple[int, int, int, int]]:
        """Return of each component the GPUs of a replica, the replicas asked for, those relayed, and the pods.

        Of what has an adapter only what is asked for there.
        """
        adapters = {
            (obj["spec"]["dgdRef"]["name"], obj["spec"]["dgdRef"]["componentName"]): int(obj["spec"]["replicas"])
            for key, obj in self._objects.items()
            if key[0] == ADAPTERS
        }
        found = []
        for key, obj in self._objects.items():
            if key[0] == GRAPHS:
                for part in obj["spec"]["components"]:
                    asked = adapters.get((key[2], part["name"]))
                    pods = self._world.operator.held(obj, part["name"])
                    if asked is None:
                        found.append((_gpus(part), part["replicas"], part["replicas"], pods))
                    else:  # what is relayed to the graph follows later, and may be of yesterday: it is not ours
                        found.append((_gpus(part), asked, asked, asked))
        return found

    def _sums(self) -> tuple[int, int]:
        """Return the GPUs that are asked for at the authorities, and those that are asked for anywhere or in use."""
        asked = held = 0
        for gpus, wanted, relayed, pods in self._parts():
            asked += gpus * wanted
            held += gpus * max(wanted, relayed, pods)
        return asked, held

    def _within(self, key: Key, obj: Json) -> None:
        """See that the ledger allows the object what it asks for."""
        name = f"{'adapter' if key[0] == ADAPTERS else 'deployment'}/{key[2]}"
        owner = obj["spec"]["dgdRef"]["name"] if key[0] == ADAPTERS else key[2]
        entry = self._ledger.entry(ObjectKey(ParticipantId(key[1], owner), name))
        if entry is None:
            return
        asked = (
            {obj["spec"]["dgdRef"]["componentName"]: obj["spec"]["replicas"]}
            if key[0] == ADAPTERS
            else {part["name"]: part["replicas"] for part in obj["spec"]["components"]}
        )
        adopted = entry.reservation is not None and entry.reservation.adopts  # what strangers had is believed at most
        for now, then in zip(entry.held, entry.after, strict=True):
            least, most = sorted((now.replicas, then.replicas))
            least = 0 if adopted else least
            here = asked[now.role.value]
            self.that(least <= here <= most, f"S4: {name} has {here} {now.role.value}, by the ledger {least} to {most}")

    def _fence_at(self, key: ObjectKey) -> str:
        kind, _, name = key.name.partition("/")
        obj = self._objects.get((ADAPTERS if kind == "adapter" else GRAPHS, key.participant.namespace, name))
        return "" if obj is None else fence_of(obj)

    # answers ---------------------------------------------------------------------------------------------------------

    def asked(self, key: str, host: Host) -> None:
        """Take note of a request."""
        self._waiting[key] = (host, host.life)

    def stepped(self, host: Host, event: Event, before: State) -> None:
        """Count what is worth reaching."""
        self.counts["a save met a conflict"] += isinstance(event, LedgerMoved)
        self.counts["a leader found that it was deposed"] += (
            before.leading and not host.state.leading and before.exclusive and type(event).__name__ == "LedgerLoaded"
        )

    def performed(self, host: Host, effect: Effect) -> None:
        """Look at what *host* says."""
        match effect:
            case Decided(key, _, _, operation):
                if operation is not None or key not in self._carried:
                    self._carried[key] = operation
            case Reply(key, outcome):
                self.that(key in self._waiting, f"{key} was answered twice, or never asked")
                self.that(self._waiting.pop(key)[0] is host, f"{key} was answered by another planner")
                self._true(key, outcome)
            case _:
                pass

    def _true(self, key: str, outcome: object) -> None:
        """See that an answer says no more than what is written."""
        self.counts[f"answered: {type(outcome).__name__}"] += 1
        if isinstance(outcome, Rejected):
            self.counts["an old number, or an id with another body, was refused"] += isinstance(
                outcome.reason, AnotherBody | OldSequence
            )
        operation = self._carried.get(key)
        written = self._written.get(operation or "", [])
        if isinstance(outcome, Succeeded) and outcome.plan.steps:
            for step in outcome.plan.steps:
                self.that(
                    all(Step(part.changes) in written for part in _as_written(step, written)) or not self._strict,
                    f"S17: {key} is told success, and {step.changes} was never written",
                )
        if isinstance(outcome, Failed):
            self.counts["a failure says what was given back"] += bool(outcome.returned)
            for step in outcome.done:
                self.that(Step(step.changes) in written, f"S17: {key} is told that {step.changes} was done; it was not")
            if self._strict and not outcome.unsure and not outcome.returned:
                untold = [step for step in written if step not in [Step(one.changes) for one in outcome.done]]
                left = _left(untold)
                self.that(not left or not operation, f"S17: {key} is told nothing of {left}, which was written")

    # rest ------------------------------------------------------------------------------------------------------------

    def rested(self) -> None:
        """See that all has come to rest, and that everybody agrees on what is."""
        ledger, world = self._ledger, self._world
        self.that(world.api.get(LEDGER).status == HTTPStatus.OK, "L: there is no ledger")
        self.that(not ledger.operations, f"L: operations never ended: {list(ledger.operations.values())}")
        self.that(
            not len(ledger.pending), f"L: reservations never ended: {[ledger.entries[k] for k in ledger.pending]}"
        )
        self.that(ledger.complete, "L: the ledger never became complete")
        for host in world.hosts:
            self._agrees(host, ledger)
        waiting = [key for key, (host, life) in self._waiting.items() if host.life == life]
        self.that(not waiting, f"L: never answered: {waiting}")
        self._as_it_is(ledger)

    def _agrees(self, host: Host, ledger: Ledger) -> None:
        book = host.state.book
        known = Ledger() if book is None else book.draft
        same = (known.entries, known.operations) == (ledger.entries, ledger.operations)
        self.that(same, f"L: {host.name} has another ledger: {_differing(known, ledger)}")
        self.that(not host.state.fault, f"L: {host.name} still says: {host.state.fault}")
        shown = {key: (pool.replicas, pool.fence) for key, pool in _pools(host.state)}
        for key, entry in ledger.entries.items():
            for one in entry.held:
                seen = shown.get((key.participant, one.role))
                self.that(seen == (one.replicas, entry.fence), f"L: {host.name} sees {seen}, the ledger has {entry}")

    def _as_it_is(self, ledger: Ledger) -> None:
        """See that the ledger has every object as it is, and no other."""
        found = {}
        for key, obj in self._objects.items():
            found[("adapter" if key[0] == ADAPTERS else "deployment", key[2])] = fence_of(obj)
        for place, entry in ledger.entries.items():
            kind, _, name = place.name.partition("/")
            self.that(found.get((kind, name)) == entry.fence, f"L: {place} is {found.get((kind, name))}, not {entry}")


def _left(steps: list[Step]) -> list[Any]:
    """Return the pools that *steps* leave with other replicas than they found: what was given back is as it was."""
    first: dict[Any, int] = {}
    last: dict[Any, int] = {}
    for change in (change for step in steps for change in step.changes):
        first.setdefault(change.pool, change.before)
        last[change.pool] = change.after
    return [pool for pool in first if first[pool] != last[pool]]


def _most(entry: Entry) -> int:
    now = sum(one.total for one in entry.held)
    return max(now, sum(one.total for one in entry.after))


def _gpus(part: Json) -> int:
    return int(part["podTemplate"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])


def _pools(state: State) -> list[tuple[Any, Any]]:
    return [((pool.key.participant, pool.key.role), pool) for pool in state.view.pools()]


def _differing(one: Ledger, other: Ledger) -> str:
    """Return in which entries and operations two ledgers differ."""
    keys = {*one.entries, *other.entries}
    entries = [f"{one.entry(key)} and {other.entry(key)}" for key in keys if one.entry(key) != other.entry(key)]
    return f"{entries}, {list(one.operations)} and {list(other.operations)}"


def _as_written(step: Step, written: Sequence[Step]) -> tuple[Step, ...]:
    """Return *step* as it should have been *written*: at once, or first what it takes and then what it gives."""
    return (step,) if Step(step.changes) in written else step.parts
