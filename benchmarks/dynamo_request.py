"""Answer what one scale request costs over Dynamo's runtime beside a handler there that does nothing.

`gpctl planner --transport dynamo` runs as a process of its own on an embedded cluster, so no API server is measured;
the empty handler is another process, and the caller a third. Turn by turn the caller sends one request to the empty
handler and one of each kind to the planner, over connections that are kept, and waits for the end of each answer.

*ratio* is the median over the median of the empty handler in the same run.
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
from benchmarks._report import Times, table, verdict
from tests.dynamo import environments
from tests.dynamo.plane import Plane, running

TURNS = 1_000
WARM = 100  # turns that are not counted
GOAL = 1.5
EMPTY = "nothing at all"
FLEET = {
    "pools": [
        {"participant": "llm/a", "role": "prefill", "replicas": 3, "gpus_per_replica": 1},
        {"participant": "llm/a", "role": "decode", "replicas": 3, "gpus_per_replica": 1},
        {"participant": "llm/b", "role": "decode", "replicas": 3, "gpus_per_replica": 1},
    ]
}
CEILING = 16


def request(name: str, role: str, replicas: int) -> str:
    """Return the request of a stock planner for *replicas*."""
    target = {"sub_component_type": role, "component_name": None, "desired_replicas": replicas}
    return json.dumps(
        {
            "caller_namespace": f"llm-{name}",
            "graph_deployment_name": name,
            "k8s_namespace": "llm",
            "target_replicas": [target],
            "blocking": False,
            "timestamp": 1_763_900_000.12,
            "predicted_load": None,
        }
    )


PAYLOADS: Mapping[str, list[str]] = {
    "what is already": [request("b", "decode", 3)],
    "one replica more or less": [request("a", "prefill", 4), request("a", "prefill", 3)],
    "more than there is": [request("a", "decode", 90)],
}


def measured(version: str, turns: int) -> Mapping[str, Times]:
    """Return how long each kind took on the runtime *version*."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        plane = Plane(Path(folder), version)
        fleet = Path(folder) / "fleet.json"
        fleet.write_text(json.dumps(FLEET))
        flags = ("--environment", "memory", "--fleet", str(fleet), "--max-total-gpus", str(CEILING))
        listen = ("--listen", "127.0.0.1:0")
        planner = plane.ours("planner", "gpadapters.dynamo.global_planner", *flags, *listen, DYN_NAMESPACE="bench")
        stack.enter_context(running(planner, "planner ready"))
        stack.enter_context(running(plane.ours("empty", "benchmarks._dynamo_empty"), "serving"))
        caller = [sys.executable, "-m", "benchmarks._dynamo_caller", str(turns + WARM), json.dumps(PAYLOADS), EMPTY]
        environ = {**plane.inherited, **environments.ours(version)}
        done = subprocess.run(caller, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ)
    return {name: Times(tuple(took[WARM:])) for name, took in json.loads(done.stdout).items()}


def main() -> None:
    """Measure on each runtime, and print."""
    parser = argparse.ArgumentParser(description="What does a scale request cost over Dynamo's runtime?")
    parser.add_argument("--turns", type=int, default=TURNS, help="requests of each kind (default: %(default)s)")
    turns = parser.parse_args().turns
    environments.get_runtimes()
    for version in environments.RUNTIMES:
        took = measured(version, turns)
        print(f"ai-dynamo-runtime {version}, {turns} requests of each kind in turn; {_cluster.busy()}")
        ratios = {name: times.median / took[EMPTY].median for name, times in took.items()}
        table(("asked for", "median (least - most)", "ratio"), [(n, took[n], f"{ratios[n]:.2f}") for n in took])
        worst = max(ratios.values())
        verdict(f"{version}: at most {GOAL} times an empty handler", holds=worst <= GOAL, found=f"{worst:.2f}")


if __name__ == "__main__":
    main()
