"""The fenced write-ahead ledger as a model that is small enough to look at whole.

The ledger is one object with compare-and-swap. It bounds the replicas of every pool from above and below, and names
the *fence* that the pool carries. A reservation is put into it before anything else is done; it names the fence that
its write expects, the one that the write leaves, and the one that a kill leaves. A bound is narrowed only after one
of the two was read on the pool itself.

The adversary. There are any number of planners; each may stop at any instruction, for ever or for a while. Whatever
is read may be arbitrarily old. A request may be lost, come late, twice, or after others; so may an answer. Here none
of them is a thing of its own. A planner knows nothing that was not once durable or once shown, and a request that
was put together from such knowledge may arrive at any later time. So it is enough to let happen in each state

- every write and every kill of every reservation that was ever in the ledger, as if just delivered, once more or for
  the first time: delay, duplication, reordering and planners that wake up are all this;
- every settlement that some state of a pool justifies that was ever shown: stale reads are this;
- or nothing: loss and crashes are this, since every state is checked and no state has to be left.

Only changes of the ledger are made on its present version: a compare-and-swap with an older one changes nothing.
There is no clock, no leader and no identity of a planner, so no promise can rest on any. What is bounded is the
number of pools, of replicas and of reservations in one history, and those are stated where the model is run.

Rules of this file: one method for each rule of the protocol, so that a test can take a single rule away.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import attrs

from tests.model.explorer import Move

T = TypeVar("T")


class Reservation(NamedTuple):
    """What is to be written: *to* replicas where the fence is *old*, leaving *new*; *kill* makes that impossible."""

    to: int
    old: int
    new: int
    kill: int


class Entry(NamedTuple):
    """What the ledger says of a pool: it has at *least* and at *most* so many replicas."""

    least: int
    most: int
    fence: int
    pending: Reservation | None = None


class Shown(NamedTuple):
    """A pool as the API server shows it; *held* are the replicas that it asks for or that are still shutting down."""

    replicas: int
    held: int
    fence: int


class Transfer(NamedTuple):
    """GPUs on their way between two pools; the *donor* goes *back* to what it had if need be."""

    phase: str
    donor: int
    back: int
    receiver: int
    to: int


class World(NamedTuple):
    """The ledger, the pools, and all that a planner may ever have learned of them.

    *written* are the reservations of each pool that were ever durable, *seen* what was ever shown of it. *raised*
    are the GPUs that strangers have added.
    """

    entries: tuple[Entry, ...]
    pools: tuple[Shown, ...]
    written: tuple[tuple[Reservation, ...], ...]
    seen: tuple[frozenset[Shown], ...]
    raised: int = 0
    transfer: Transfer | None = None
    escrow: int = 0


Moves = Iterator[tuple[Move, World]]


@attrs.frozen
class Setting:
    """How large the model is.

    *gpus* are those of one replica of each pool, *replicas* what the pools begin with. Nobody asks for more than
    *most* replicas. *reservations* bounds how many are made in one history. Strangers may take replicas away
    (*downs*), and add some (*ups*) so many times. *lagging*: replicas that were given up go on holding their GPUs
    for a while. *transfers*: how many may be begun.
    """

    gpus: tuple[int, ...]
    replicas: tuple[int, ...]
    ceiling: int
    most: int
    reservations: int
    floor: int = 0
    downs: bool = False
    ups: int = 0
    lagging: bool = False
    transfers: bool = False


class Fenced:
    """The protocol. Satisfies `tests.model.explorer.Model`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.start = World(
            tuple(Entry(count, count, 0) for count in setting.replicas),
            tuple(Shown(count, count, 0) for count in setting.replicas),
            tuple(() for _ in setting.replicas),
            tuple(frozenset({Shown(count, count, 0)}) for count in setting.replicas),
        )

    def moves(self, world: World) -> Moves:
        yield from self.reserving(world)
        for pool in range(len(world.pools)):
            yield from self.writing(world, pool)
            yield from self.killing(world, pool)
            yield from self.settling(world, pool)
            yield from self.others(world, pool)
        if self.setting.transfers:
            yield from self.transferring(world)

    def breach(self, world: World) -> str | None:
        return self.outward(world) or self.inward(world)

    def outward(self, world: World) -> str | None:
        """Return which promise is broken that others can see, who know nothing of a ledger."""
        setting = self.setting
        asked = sum([g * pool.replicas for g, pool in zip(setting.gpus, world.pools, strict=True)])
        held = sum([g * pool.held for g, pool in zip(setting.gpus, world.pools, strict=True)])
        if asked > setting.ceiling + world.raised:
            return "more is asked for than the ceiling"
        if held > setting.ceiling + world.raised:
            return "more is held than the ceiling"
        if asked < setting.floor and not setting.downs:
            return "less is asked for than the floor"
        return None

    def inward(self, world: World) -> str | None:
        """Return what the ledger has wrong; what it took over from strangers may be more than there is."""
        if self.setting.downs or self.setting.ups:
            return None
        if self.most(world) + world.escrow > self.setting.ceiling:
            return "the ledger promises more than the ceiling"
        if any(pool.held > entry.most for pool, entry in zip(world.pools, world.entries, strict=True)):
            return "a pool has more than the ledger knows of"
        return None

    def unrest(self, world: World) -> int:
        transfer = world.transfer
        begun = transfer is not None and world.entries[transfer.donor].pending is not None
        under_way = {None: 0, "draining": 30, "holding": 20, "granting": 12, "returning": 4 if begun else 10}
        pools = [_unrest(entry, pool) for entry, pool in zip(world.entries, world.pools, strict=True)]
        return under_way[transfer and transfer.phase] + sum(pools)

    # what planners do to the ledger ----------------------------------------------------------------------------------

    def reserving(self, world: World) -> Moves:
        """Let any pool get any number of replicas that the bounds leave room for."""
        for pool, entry in enumerate(world.entries):
            if not self.free(world, pool):
                continue
            for to in range(self.setting.most + 1):
                if to == entry.most == entry.least:
                    continue
                raised, lowered = self.bounds(entry, to)
                if self.rises(entry, to) and self.most(world, pool, raised) + world.escrow > self.setting.ceiling:
                    continue
                if to < entry.least and self.least(world, pool, lowered) < self.setting.floor:
                    continue
                yield ("reserve", pool, to), self.reserved(world, pool, to)

    def rises(self, entry: Entry, to: int) -> bool:
        """Say whether the write may add GPUs; an upper bound that was taken over from a stale read allows nothing."""
        return to > entry.least

    def free(self, world: World, pool: int) -> bool:
        """Say whether the ledger lets *pool* have a reservation that a caller asks for."""
        transfer = world.transfer
        engaged = transfer is not None and pool in (transfer.donor, transfer.receiver)
        made = sum([len(reservations) for reservations in world.written])
        return not engaged and world.entries[pool].pending is None and made < self.setting.reservations

    def bounds(self, entry: Entry, to: int) -> tuple[int, int]:
        """Return the upper and the lower bound of a pool while nobody can say whether it has *to* replicas already."""
        return max(entry.most, to), min(entry.least, to)

    def reserved(self, world: World, pool: int, to: int) -> World:
        """Return the world in which the ledger says, before anything is done, what is to be done."""
        entry, number = world.entries[pool], len(world.written[pool])
        reservation = Reservation(to, entry.fence, 2 * number + 1, 2 * number + 2)
        raised, lowered = self.bounds(entry, to)
        return world._replace(
            entries=_put(world.entries, pool, Entry(lowered, raised, entry.fence, reservation)),
            written=_put(world.written, pool, (*world.written[pool], reservation)),
        )

    def settling(self, world: World, pool: int) -> Moves:
        """Narrow the bounds by what some planner once read of *pool*; strangers' replicas are taken in."""
        entry = world.entries[pool]
        for shown in world.seen[pool]:
            pending = entry.pending
            if pending is None:
                if shown.fence == entry.fence and shown.replicas > entry.most:
                    yield ("adopt", pool, shown.replicas), self.adopted(world, pool, shown.replicas)
            elif shown.fence == pending.new and self.confirmed(shown, pending.to):
                settled = Entry(pending.to, pending.to, pending.new)
                yield ("settle", pool, pending.to), self.settled(world, pool, settled, won=True)
            elif shown.fence == pending.kill:
                settled = Entry(shown.replicas, shown.held, pending.kill)
                yield ("settle killed", pool, shown.replicas), self.settled(world, pool, settled, won=False)

    def confirmed(self, shown: Shown, to: int) -> bool:
        """Say whether what was given up is free."""
        return shown.held <= to

    def adopted(self, world: World, pool: int, replicas: int) -> World:
        return world._replace(entries=_put(world.entries, pool, world.entries[pool]._replace(most=replicas)))

    def settled(self, world: World, pool: int, entry: Entry, *, won: bool) -> World:
        """Return the world in which the ledger knows what *pool* has; the GPUs of a transfer stay set aside."""
        freed = (world.entries[pool].most - entry.most) * self.setting.gpus[pool]
        world = world._replace(entries=_put(world.entries, pool, entry))
        transfer = world.transfer
        if transfer is None or pool not in (transfer.donor, transfer.receiver):
            return world
        if transfer.phase == "draining" and won:
            return world._replace(transfer=transfer._replace(phase="holding"), escrow=self.set_aside(freed))
        if transfer.phase == "granting" and not won:
            aside = world.escrow + self.set_aside(freed)
            return world._replace(transfer=transfer._replace(phase="returning"), escrow=aside)
        return world._replace(transfer=None, escrow=0)

    # transfers -------------------------------------------------------------------------------------------------------

    def transferring(self, world: World) -> Moves:
        """Let GPUs that no bound leaves room for come from another pool, and go back there."""
        transfer = world.transfer
        if transfer is None:
            yield from self.beginning(world)
            return
        if transfer.phase == "holding":
            need = self.need(world, transfer.receiver, transfer.to)
            if self.most(world) + need <= self.setting.ceiling:
                granted = self.reserved(world, transfer.receiver, transfer.to)
                aside = max(0, world.escrow - need)
                move: Move = ("grant", transfer.receiver, transfer.to)
                yield move, granted._replace(transfer=transfer._replace(phase="granting"), escrow=aside)
        if transfer.phase in ("holding", "returning") and world.entries[transfer.donor].pending is None:
            aside = max(0, world.escrow - self.need(world, transfer.donor, transfer.back))
            returned = self.reserved(world, transfer.donor, transfer.back)
            move = ("give back", transfer.donor, transfer.back)
            yield move, returned._replace(transfer=transfer._replace(phase="returning"), escrow=aside)

    def beginning(self, world: World) -> Moves:
        free = [pool for pool in range(len(world.pools)) if self.free(world, pool)]
        for donor in free:
            back = world.entries[donor].most
            for receiver in free:
                for to in range(world.entries[receiver].most + 1, self.setting.most + 1):
                    need = self.most(world) + self.need(world, receiver, to) - self.setting.ceiling
                    left = back - -(-need // self.setting.gpus[donor])
                    if donor != receiver and 0 <= left < back:
                        begun = self.reserved(world, donor, left)
                        transfer = Transfer("draining", donor, back, receiver, to)
                        yield ("transfer", donor, receiver, to), begun._replace(transfer=transfer)

    def need(self, world: World, pool: int, to: int) -> int:
        """Return the GPUs that *pool* takes beyond what the ledger already counts for it."""
        return max(0, to - world.entries[pool].most) * self.setting.gpus[pool]

    def set_aside(self, gpus: int) -> int:
        """Return what of the GPUs that a transfer has freed nobody else may have."""
        return gpus

    def most(self, world: World, pool: int = -1, replicas: int = 0) -> int:
        """Return the GPUs by all upper bounds, that of *pool* being *replicas*."""
        bounds = [replicas if at == pool else entry.most for at, entry in enumerate(world.entries)]
        return sum([g * bound for g, bound in zip(self.setting.gpus, bounds, strict=True)])

    def least(self, world: World, pool: int, replicas: int) -> int:
        """Return the GPUs by all lower bounds, that of *pool* being *replicas*."""
        bounds = [replicas if at == pool else entry.least for at, entry in enumerate(world.entries)]
        return sum([g * bound for g, bound in zip(self.setting.gpus, bounds, strict=True)])

    # what arrives at a pool, from whomever and whenever it was sent --------------------------------------------------

    def writing(self, world: World, pool: int) -> Moves:
        """Let the write of any reservation that was ever durable arrive."""
        shown = world.pools[pool]
        for one in world.written[pool]:
            if self.lands(shown, one):
                held = max(shown.held, one.to) if self.setting.lagging else one.to
                yield ("write", pool, one.to), self.changed(world, pool, Shown(one.to, held, one.new))

    def lands(self, shown: Shown, reservation: Reservation) -> bool:
        """Say whether the API server takes the write: it tests the fence and sets the next one in one go."""
        return shown.fence == reservation.old

    def killing(self, world: World, pool: int) -> Moves:
        """Let the kill of any reservation that was ever durable arrive; what is given back is never taken away."""
        shown, transfer = world.pools[pool], world.transfer
        if transfer is not None and transfer.phase == "returning" and pool == transfer.donor:
            return
        for one in world.written[pool]:
            if shown.fence == one.old:
                yield ("kill", pool, one.to), self.changed(world, pool, shown._replace(fence=one.kill))

    def others(self, world: World, pool: int) -> Moves:
        """Let strangers change replicas, who know of no fence, and let what was given up come free."""
        shown, setting = world.pools[pool], self.setting
        if shown.held > shown.replicas:
            yield ("released", pool), self.changed(world, pool, shown._replace(held=shown.replicas))
        if setting.downs and shown.replicas:
            less = shown.replicas - 1
            held = shown.held if setting.lagging else less
            yield ("stranger takes", pool), self.changed(world, pool, Shown(less, held, shown.fence))
        if world.raised < setting.ups * setting.gpus[pool] and shown.replicas < setting.most:
            more = shown.replicas + 1
            raised = world._replace(raised=world.raised + setting.gpus[pool])
            fresh = Shown(more, max(shown.held, more), shown.fence)
            yield ("stranger adds", pool), self.changed(raised, pool, fresh)

    def changed(self, world: World, pool: int, shown: Shown) -> World:
        """Return the world in which *pool* is so, and was seen so."""
        return world._replace(
            pools=_put(world.pools, pool, shown), seen=_put(world.seen, pool, world.seen[pool] | {shown})
        )


def _unrest(entry: Entry, pool: Shown) -> int:
    shutting_down = 1 if pool.held > pool.replicas else 0
    if entry.pending is None:
        return shutting_down
    return shutting_down + (4 if pool.fence == entry.pending.old else 1)


def _put(values: tuple[T, ...], at: int, value: T) -> tuple[T, ...]:
    return (*values[:at], value, *values[at + 1 :])
