"""Answer whether half an hour of everything at once breaks the ceiling, loses a request or lets memory grow.

Four planners of 200 pools on a real API server: callers that want this and that, every fifth write meeting a fault on
its way and every third watch cut, and every half a minute a planner killed and begun again. A monitor holds every
revision of the cluster and of the ledger against the ceiling. Every request is asked again until it is answered; one
that is not is lost. At the end the weather is fair, and everything must come to rest with the ledger saying what is
there. Memory is that of the one planner that is never killed.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import _cluster
from benchmarks._report import verdict
from tests.chaos.lanes import LEASE, lane
from tests.chaos.soak import Soaked, pools, soak
from tests.cluster import Behaviour, OperatorProcess

POOLS = 200
SECONDS = 1_800.0
CALLERS = 8
DEATH_EVERY_S = 30.0
SPARE = 24
MOST_GROWTH = 1.1


def judge(soaked: Soaked) -> None:
    """Print what was found and how the goals are met."""
    found = soaked.found
    verdict("never over in the cluster", holds=not found.asked.over, found=str(found.asked))
    verdict("never over in the ledger", holds=not found.promised.over, found=str(found.promised))
    print(f"every request was answered: {soaked.answers.total():,}, {dict(soaked.answers)}; and all came to rest")
    met = {name: count for name, count in soaked.faults.items() if name != "none"}
    print(f"{sum(met.values()):,} of {soaked.faults.total():,} requests met a fault: {met}; {soaked.deaths} deaths")
    memory = f"{soaked.memory[0]:.0f} MiB at first, {soaked.memory[-1]:.0f} at the end, {soaked.growth:.3f} of settled"
    verdict(f"memory grows by at most {MOST_GROWTH - 1:.0%}", holds=soaked.growth <= MOST_GROWTH, found=memory)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Does half an hour of everything at once break anything?")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    deployments, gpus = pools(POOLS)
    behaviour = Behaviour(relay_s=0.05, termination_s=0.3)
    with (
        tempfile.TemporaryDirectory() as folder,
        _cluster.api_server() as server,
        OperatorProcess(server.admin, server.folder, behaviour),
        lane(server, Path(folder), ceiling=gpus + SPARE, floor=gpus // 2, deployments=deployments, flags=LEASE) as here,
    ):
        soaked = soak(
            here,
            seconds=options.seconds,
            callers_at_once=CALLERS,
            seed=options.seed,
            death_every_s=DEATH_EVERY_S,
        )
    print(f"{_cluster.busy()}; {options.seconds:g} s, seed {options.seed}")
    judge(soaked)


if __name__ == "__main__":
    main()
