"""The protocol with one rule taken away, each in its own class; every one of them must break a promise."""

# ruff: noqa: ARG002 - a rule that is taken away looks at nothing

from tests.model.fenced import Entry, Fenced, Moves, Reservation, Shown, World


class Ablated(Fenced):
    """Judge by the pools alone: what the ledger says may be wrong as long as nothing comes of it."""

    def breach(self, world: World) -> str | None:
        return self.outward(world)


class GivesUpWithoutKill(Ablated):
    """Take a write that was not seen to land for one that never will."""

    def killing(self, world: World, pool: int) -> Moves:
        return iter(())

    def settling(self, world: World, pool: int) -> Moves:
        yield from super().settling(world, pool)
        pending = world.entries[pool].pending
        for shown in world.seen[pool]:
            if pending is not None and shown.fence == pending.old:
                entry = Entry(shown.replicas, shown.replicas, shown.fence)
                yield ("give up", pool), self.settled(world, pool, entry, won=False)


class SettlesOnAnyFence(Ablated):
    """Believe a read that shows a fence of which the reservation says nothing."""

    def settling(self, world: World, pool: int) -> Moves:
        yield from super().settling(world, pool)
        pending = world.entries[pool].pending
        for shown in world.seen[pool]:
            if pending is not None and shown.fence not in (pending.old, pending.new, pending.kill):
                entry = Entry(shown.replicas, shown.replicas, shown.fence)
                yield ("settle on any fence", pool), self.settled(world, pool, entry, won=False)


class FreesWhatIsAskedFor(Ablated):
    """Hand out what a pool is to give up when that is written down, not when it is seen."""

    def bounds(self, entry: Entry, to: int) -> tuple[int, int]:
        return to, min(entry.least, to)


class CountsWhatIsAskedFor(Ablated):
    """Count what a pool is to get toward the floor when that is written down, not when it is seen."""

    def bounds(self, entry: Entry, to: int) -> tuple[int, int]:
        return max(entry.most, to), to


class TestsNoFence(Ablated):
    """Write without a condition."""

    def lands(self, shown: Shown, reservation: Reservation) -> bool:
        return shown.fence != reservation.new


class ActsBeforeItIsWritten(Ablated):
    """Send a write whose reservation did not become durable, because somebody else changed the ledger first."""

    def reserving(self, world: World) -> Moves:
        for move, after in super().reserving(world):
            yield move, after
            yield ("conflict", *move[1:]), after._replace(entries=world.entries)


class ListsThenPatches(Ablated):
    """Decide on a fresh list of all pools, then write one on condition that this one has not changed."""

    def reserving(self, world: World) -> Moves:
        listed = tuple(Entry(pool.replicas, pool.replicas, pool.fence) for pool in world.pools)
        yield from super().reserving(world._replace(entries=listed))

    def settling(self, world: World, pool: int) -> Moves:
        return iter(())

    def killing(self, world: World, pool: int) -> Moves:
        return iter(())


class FillsAdoptedBounds(Ablated):
    """Check the ceiling only where an upper bound rises."""

    def rises(self, entry: Entry, to: int) -> bool:
        return to > entry.most


class ReleasesByTheSpec(Ablated):
    """Hand out what a pool no longer asks for, although its replicas are still shutting down."""

    def confirmed(self, shown: Shown, to: int) -> bool:
        return True


class SetsNothingAside(Ablated):
    """Leave what a transfer has freed to anybody, and give it back all the same."""

    def set_aside(self, gpus: int) -> int:
        return 0
