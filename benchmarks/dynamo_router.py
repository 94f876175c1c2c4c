"""Answer what our router adds to a request over Dynamo's runtime, beside what Dynamo's own global router adds.

Both run as processes with the same configuration in front of one process that answers as the router of both pools
would, and a last process asks as a frontend does: turn by turn the pool itself, Dynamo's router and ours, over
connections that are kept, and waits for the end of each answer.

*added* is the median less the median of the pool itself; the ratio is of what was added, in the same run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks import _cluster
from benchmarks._report import Times, shown, table, verdict
from tests.dynamo import environments, model
from tests.dynamo.plane import Plane, running
from tests.routerworld.routers import aggregated

TURNS = 500
WARM = 50  # turns that are not counted
GOAL = 1.2  # the same, but for the noise of a machine that others use
OUTPUTS = (1, 100)
POOL, PEER, OURS = "the pool itself", "dynamo.global_router", "gpctl router"
PLACES = {POOL: "bench-1.router.generate", PEER: "peer.global_router.generate", OURS: "ours.global_router.generate"}


def request(outputs: int) -> Mapping[str, object]:
    """Return a request as a frontend has prepared it, for so many *outputs*."""
    return {
        "model": "m",
        "token_ids": list(range(500)),
        "stop_conditions": {"max_tokens": outputs},
        "router": {"ttft_target": 900.0, "itl_target": 10.0},
        "routing": {"priority": 1},
    }


def measured(version: str, turns: int) -> Mapping[int, Mapping[str, Times]]:
    """Return how long each place took for each number of outputs on the runtime *version*."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        plane = Plane(Path(folder), version)
        files = model.write(Path(folder) / "model")
        config = Path(folder) / "router.json"
        config.write_text(json.dumps(aggregated("bench-0", "bench-1")))
        stack.enter_context(running(plane.ours("pool", "benchmarks._dynamo_pool"), "serving"))
        flags = ("--config", str(config), "--model-name", str(files), "--namespace")
        stock = environments.stock(version)
        peer = plane.stock("peer", "-m", "dynamo.global_router", *flags, "peer", **stock)
        stack.enter_context(running(peer, "Registered endpoint"))
        ours = plane.ours("ours", "gpadapters.dynamo.global_router", *flags, "ours")
        stack.enter_context(running(ours, r"serving \S+ as"))
        environ = {**plane.inherited, **environments.ours(version)}
        return {outputs: _asked(environ, turns, outputs) for outputs in OUTPUTS}


def _asked(environ: Mapping[str, str], turns: int, outputs: int) -> Mapping[str, Times]:
    what = (str(turns + WARM), json.dumps(PLACES), json.dumps(request(outputs)))
    caller = [sys.executable, "-m", "benchmarks._dynamo_frontend", *what]
    done = subprocess.run(caller, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ)
    return {name: Times(tuple(took[WARM:])) for name, took in json.loads(done.stdout).items()}


def main() -> None:
    """Measure on each runtime, and print."""
    parser = argparse.ArgumentParser(description="What does our router add over Dynamo's runtime?")
    parser.add_argument("--turns", type=int, default=TURNS, help="requests to each place (default: %(default)s)")
    turns = parser.parse_args().turns
    environments.main()
    for version in environments.RUNTIMES:
        for outputs, took in measured(version, turns).items():
            print(f"ai-dynamo {version}, answers of {outputs} outputs, {turns} requests in turn; {_cluster.busy()}")
            added = {name: times.median - took[POOL].median for name, times in took.items()}
            rows = [(name, took[name], shown(added[name]) if name != POOL else "-") for name in took]
            table(("asked", "median (least - most)", "added"), rows)
            ratio = added[OURS] / added[PEER]
            claim = f"{version}, {outputs} outputs: at most {GOAL} times what Dynamo's own adds"
            verdict(claim, holds=ratio <= GOAL, found=f"{ratio:.2f}")


if __name__ == "__main__":
    main()
