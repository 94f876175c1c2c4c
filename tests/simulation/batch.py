"""Many histories, in several processes; what fails is made as small as it can be.

Rules of this file: what a seed means must not depend on where it runs. Some collections are iterated in the order of
hashes, so Python must be started with PYTHONHASHSEED=0; `python -m tests.simulation` sees to that.
"""

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable

import attrs

from tests.simulation.swarm import Swarm, drawn, simpler
from tests.simulation.world import World

MUST_HAPPEN = (
    "a bootstrap was taken over",
    "a deployment was deleted",
    "a dip was recorded",
    "a failure says what was given back",
    "a kill lost",
    "a kill won",
    "a late or doubled request was refused",
    "a leader found that it was deposed",
    "a planner died",
    "a save met a conflict",
    "a save that nobody heard of was stored",
    "a stale ledger was read",
    "a stale list was served",
    "an object was adopted",
    "an old number, or an id with another body, was refused",
    "another planner finished an operation",
    "answered: Failed",
    "answered: HandedOver",
    "answered: Rejected",
    "answered: Repeated",
    "answered: Succeeded",
    "foreign GPUs above the ceiling were taken in",
    "GPUs were in escrow",
    "several decisions went into one save",
    "something was given back",
)
"""What a batch that still explores reaches, each at least once."""

_CHUNK = 20


@attrs.frozen
class Failure:
    """A history that broke a promise: *problem* says which."""

    swarm: Swarm
    problem: str

    @property
    def kind(self) -> str:
        """Return the name of the promise."""
        return self.problem.partition(":")[0]

    @property
    def command(self) -> str:
        """Return what plays it again."""
        swarm = self.swarm
        plain = drawn(swarm.seed, steps=swarm.steps)
        left_out = [f"--without '{fault}'" for fault in plain.faults if fault not in swarm.faults]
        sizes = [f"--{name} {getattr(swarm, name)}" for name in ("hosts", "clients", "steps")]
        packed = ["--plain"] if plain.packed and not swarm.packed else []
        return " ".join(["nox -s simulate -- --seed", str(swarm.seed), *sizes, *packed, *left_out])


@attrs.frozen
class Result:
    """What came of many histories."""

    schedules: int = 0
    steps: int = 0
    revisions: int = 0
    counts: Counter[str] = attrs.field(factory=Counter)
    failures: tuple[Failure, ...] = ()

    def __add__(self, other: "Result") -> "Result":
        return Result(
            self.schedules + other.schedules,
            self.steps + other.steps,
            self.revisions + other.revisions,
            self.counts + other.counts,
            self.failures + other.failures,
        )

    @property
    def missed(self) -> list[str]:
        """Return what never happened, although it should."""
        return [name for name in MUST_HAPPEN if not self.counts[name]]


def run(swarm: Swarm) -> Result:
    """Return what comes of one history; any exception is a failure, since nothing may raise one."""
    world: World | None = None
    failures: tuple[Failure, ...] = ()
    try:
        world = World(swarm)
        world.run()
    except Exception as fault:  # noqa: BLE001 - whatever it is, it must not be
        problem = str(fault) if type(fault).__name__ == "BreachError" else f"{type(fault).__name__}: {fault}"
        failures = (Failure(swarm, problem),)
    if world is None:
        return Result(1, failures=failures)
    return Result(1, world.steps, world.api.revision, world.counts, failures)


def many(seeds: Iterable[int], *, processes: int) -> tuple[Result, float]:
    """Return what comes of the histories of *seeds*, and the seconds that it took."""
    began = time.monotonic()
    every = list(seeds)
    chunks = [every[at : at + _CHUNK] for at in range(0, len(every), _CHUNK)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        total = sum(pool.imap_unordered(_chunk, chunks), Result())
    return total, time.monotonic() - began


def _chunk(seeds: list[int]) -> Result:
    return sum((run(drawn(seed)) for seed in seeds), Result())


def shrunk(failure: Failure, *, tries: int = 200) -> Failure:
    """Return the simplest history that was found to break the same promise."""
    while True:
        for swarm in simpler(failure.swarm):
            tries -= 1
            found = [one for one in run(swarm).failures if one.kind == failure.kind]
            if found:
                failure = found[0]
                break
            if tries <= 0:
                return failure
        else:
            return failure
