"""What may go wrong in one run: drawn by its seed, and taken away again to find what a failure really needs.

Rules of this file: values only. In each run some faults are on and others off, since faults that are always all on
hide each other.
"""

from collections.abc import Mapping
from random import Random

import attrs

FAULTS = (
    "requests get lost",
    "requests come late",
    "requests come twice",
    "answers get lost",
    "out of order",
    "server errors",
    "denials",
    "news gets lost",
    "watches break",
    "stale lists",
    "stale ledgers",
    "compaction",
    "crashes",
    "crashes between effects",
    "pauses",
    "the lease moves",
    "the lease lies",
    "clocks jump",
    "stuck pods",
    "stale relay",
    "strangers",
    "deletions",
    "fences removed",
)
"""Each is a knob of its own."""

MEDDLING = frozenset({"strangers", "deletions", "fences removed"})
"""What others do to what is ours to write; without these the ceiling is kept to the letter."""

LEASES = ("on", "off")


@attrs.frozen
class Swarm:
    """One run: its *seed*, how strong each fault is, and how large the world is."""

    seed: int
    faults: Mapping[str, float]
    hosts: int
    lease: str
    clients: int
    steps: int
    slack: int
    floor: bool
    packed: bool

    def on(self, fault: str) -> float:
        """Return how strong *fault* is; 0: it does not happen."""
        return self.faults.get(fault, 0.0)

    @property
    def strict(self) -> bool:
        """Say whether nobody but the planners writes what they write."""
        return not any(self.on(fault) for fault in MEDDLING)

    def without(self, fault: str) -> "Swarm":
        """Return this run without one fault."""
        return attrs.evolve(self, faults={name: weight for name, weight in self.faults.items() if name != fault})


def drawn(seed: int, *, steps: int = 300) -> Swarm:
    """Return the run of *seed*; in one of ten everything goes well."""
    rng = Random(f"swarm {seed}")  # noqa: S311 - the same for the same seed
    calm = rng.random() < 0.1
    share = rng.choice((0.15, 0.35, 0.6))
    faults = {fault: rng.choice((0.3, 1.0, 2.0)) for fault in FAULTS if not calm and rng.random() < share}
    return Swarm(
        seed,
        faults,
        hosts=rng.choice((1, 1, 2, 2, 3, 4)),
        lease=rng.choice(LEASES),
        clients=rng.randint(1, 4),
        steps=steps,
        slack=rng.choice((0, 0, 1, 2, 4)),
        floor=rng.random() < 0.4,
        packed=rng.random() < 0.3,
    )


def simpler(swarm: Swarm) -> list[Swarm]:
    """Return runs that need less than *swarm*: one fault, one client, one planner or half of the steps fewer."""
    fewer = [swarm.without(fault) for fault in swarm.faults]
    if swarm.clients > 1:
        fewer.append(attrs.evolve(swarm, clients=1))
    if swarm.hosts > 1:
        fewer.append(attrs.evolve(swarm, hosts=swarm.hosts - 1))
    if swarm.packed:
        fewer.append(attrs.evolve(swarm, packed=False))
    return [*fewer, attrs.evolve(swarm, steps=swarm.steps // 2), attrs.evolve(swarm, steps=swarm.steps * 9 // 10)]
