"""`python -m tests.simulation`: run many simulated histories, or play one again.

With `--seeds N` it runs N histories and fails if one breaks a promise, or if what should happen in so many never did.
With `--seed S` it plays one again and tells every step.
"""

# ruff: noqa: T201 - what it prints is what it is for

import argparse
import os
import sys

import attrs

from tests.simulation.batch import many, run, shrunk
from tests.simulation.swarm import FAULTS, Swarm, drawn
from tests.simulation.world import World

ENOUGH = 1_000
"""From how many histories on everything that should happen must have happened."""

SHOWN = 5


def main() -> int:
    """Run, and return the exit status."""
    asked = _arguments()
    if asked.seed is not None:
        return _replay(_swarm(asked))
    result, seconds = many(range(asked.start, asked.start + asked.seeds), processes=asked.processes)
    rates = f"{result.schedules / seconds:.0f} schedules/s, {result.steps / seconds:,.0f} steps/s"
    print(
        f"{result.schedules:,} schedules, {result.steps:,} steps of planners, {result.revisions:,} revisions in "
        f"{seconds:.1f} s ({rates}, {asked.processes} processes); {len(result.failures)} broke a promise"
    )
    for name, count in sorted(result.counts.items(), key=lambda one: -one[1]):
        print(f"  {count:>8,}  {name}")
    for failure in result.failures[:SHOWN]:
        small = failure if asked.no_shrinking else shrunk(failure)
        print(f"{small.problem}\n  {small.command}")
    missed = result.missed if result.schedules >= ENOUGH else []
    for name in missed:
        print(f"never happened: {name}")
    return 1 if result.failures or missed else 0


def _replay(swarm: Swarm) -> int:
    print(swarm)
    failures = run(swarm).failures
    try:
        World(swarm, tap=print).run()
    except Exception as fault:
        print(f"{type(fault).__name__}: {fault}")
        if not failures:
            raise
    return 1 if failures else 0


def _swarm(asked: argparse.Namespace) -> Swarm:
    swarm = drawn(asked.seed, steps=asked.steps)
    for fault in asked.without:
        swarm = swarm.without(fault)
    sizes = {name: value for name in ("hosts", "clients") if (value := getattr(asked, name)) is not None}
    return attrs.evolve(swarm, packed=swarm.packed and not asked.plain, **sizes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s simulate --", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=2_000, help="how many histories to run (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="how many at once (default: %(default)s)")
    parser.add_argument("--no-shrinking", action="store_true", help="show failures as they were found")
    parser.add_argument("--seed", type=int, help="play this one again, and tell every step")
    parser.add_argument("--steps", type=int, default=300, help="how many actions of a history (default: %(default)s)")
    parser.add_argument("--hosts", type=int, help="how many planners")
    parser.add_argument("--clients", type=int, help="how many callers")
    parser.add_argument("--plain", action="store_true", help="do not write ledgers as documents")
    parser.add_argument("--without", action="append", default=[], choices=FAULTS, metavar="FAULT", help="leave it out")
    return parser.parse_args()


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # see batch
        again = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606 - this very program
    sys.exit(main())
