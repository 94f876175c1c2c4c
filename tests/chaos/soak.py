"""A long time under everything at once: many pools, callers that want this and that, bad weather, planners that die.

Rules of this file: it tells what happened and judges nothing. The first planner never dies, so that its memory can be
followed; the others do, each a while after it began, and begin again.
"""

import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.chaos.faults import storm
from tests.chaos.lanes import Lane
from tests.chaos.load import callers
from tests.chaos.monitor import Found
from tests.cluster import Json, disaggregated

_SETTLED = 0.2  # of the time, in which connections are made and caches filled
_SAMPLES = 10
_SAMPLE_S = 1.0


@attrs.frozen
class Soaked:
    """What a soak has found: *faults* by name, *deaths* of planners, *memory* of one in MiB, sample by sample."""

    found: Found
    answers: Counter[str]
    faults: Counter[str]
    deaths: int
    memory: Sequence[float]

    @property
    def growth(self) -> float:
        """Return the memory at the end over what it was when the first fifth of the time was over."""
        settled = self.memory[int(len(self.memory) * _SETTLED) :]
        return statistics.median(settled[-_SAMPLES:]) / statistics.median(settled[:_SAMPLES])

    def __str__(self) -> str:
        answers = ", ".join(f"{count:,} {status}" for status, count in sorted(self.answers.items()))
        faults = sum(count for name, count in self.faults.items() if name != "none")
        return (
            f"asked for: {self.found.asked}; promised: {self.found.promised}; answers: {answers}; "
            f"{faults:,} of {self.faults.total():,} requests met a fault; {self.deaths} planners died; "
            f"memory {self.growth:.2f} of what it was settled"
        )


def pools(count: int) -> tuple[list[Json], int]:
    """Return deployments with *count* pools in all, every fourth of them with scaling adapters, and their GPUs."""
    made = [disaggregated(f"model-{at:03}", scaling_adapter=at % 4 == 0) for at in range(count // 2)]
    return made, 2 * len(made)


def soak(here: Lane, *, seconds: float, callers_at_once: int, seed: int, death_every_s: float) -> Soaked:
    """Let everything happen for so many *seconds*, then let it come to rest in fair weather."""
    names = sorted({name for name, _ in here.replicas()})
    steady, *others = here.planners.all
    chance = random.Random(seed)  # noqa: S311 - who dies is the same on every run
    memory: list[float] = []
    deaths = 0
    ends = time.monotonic() + seconds
    with callers(here, names, count=callers_at_once, most=3, seed=seed) as answers:
        for number, one in enumerate(here.planners.all):
            one.proxy.weather = storm(seed + number)
            one.proxy.cut()
        dies = time.monotonic() + death_every_s
        while time.monotonic() < ends:
            time.sleep(_SAMPLE_S)
            memory.append(resident_mib(steady.process.pid))
            if time.monotonic() > dies:
                dies += death_every_s
                deaths += 1
                victim = chance.choice(others)
                victim.kill()
                victim.begin()
            for one in others:
                one.url = one.url or one.listens()
        for one in here.planners.all:
            one.proxy.weather = None
    found = here.at_rest()
    faults = sum((one.proxy.met for one in here.planners.all), Counter[str]())
    return Soaked(found, answers, faults, deaths, memory)


def resident_mib(pid: int) -> float:
    """Return the memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024
