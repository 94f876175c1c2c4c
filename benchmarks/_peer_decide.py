"""The peer's side of `decide`, run in the peer's environment: it answers lines of JSON.

A line with a fleet makes an orchestrator; a line with turns lets it mediate one request a turn. Timed is `mediate`
alone: observing before it, applying after it and logging in it cost the peer nothing here.
"""

import json
import logging
import signal
import sys
import time
from typing import Any

from dynamo.global_planner.capacity_manager import CapacityManager, PoolSpec
from dynamo.global_planner.orchestrator import Orchestrator
from dynamo.planner.connectors.protocol import TargetReplica


class _TooSlowError(Exception):
    """One request took longer than anybody waits."""


class _Case:
    def __init__(self, case: dict[str, Any]) -> None:
        self._now = 0.0
        self._orchestrator = Orchestrator(
            CapacityManager(),
            None,
            max_total_gpus=case["ceiling"],
            min_total_gpus=case["floor"],
            intent_cache_ttl_seconds=case["ttl_s"],
            now=lambda: self._now,
        )
        self._fleet: dict[str, dict[str, PoolSpec]] = {}
        for participant, role, replicas, gpus in case["pools"]:
            self._fleet.setdefault(participant, {})[role] = PoolSpec(role, replicas, gpus)
        for wish in case["wishes"]:
            self._wish(*wish)

    def answer(self, turns: list[Any], *, seconds: float, patience_s: float) -> dict[str, Any]:
        """Mediate the requests of *turns* for *seconds*; none gets more than *patience_s*."""
        took: list[float] = []
        partners = approved = 0
        end = time.perf_counter() + seconds
        for now, wishes, request in turns:
            for wish in wishes:
                self._wish(*wish)
            if took and time.perf_counter() > end:
                break
            self._now = now
            participant, role, replicas = request
            targets = [_target(role, replicas)]
            signal.setitimer(signal.ITIMER_REAL, patience_s)
            try:
                start = time.perf_counter()
                result = self._orchestrator.mediate(participant, targets, self._fleet)
                took.append(time.perf_counter() - start)
            except _TooSlowError:
                return {"seconds": took, "approved": approved, "partners": partners, "unfinished": True}
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            approved += result.approved
            partners += len(result.selected_partners)
        return {"seconds": took, "approved": approved, "partners": partners, "unfinished": False}

    def _wish(self, participant: str, role: str, replicas: int, now: float) -> None:
        self._now = now
        self._orchestrator.update_intent_cache(participant, [_target(role, replicas)], self._fleet[participant])


def _target(role: str, replicas: int) -> TargetReplica:
    return TargetReplica(sub_component_type=role, desired_replicas=replicas)


def _give_up(*_: object) -> None:
    raise _TooSlowError


def main() -> None:
    """Answer every line of standard input."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _give_up)
    cases: dict[str, _Case] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if "pools" in question:
            cases[question["case"]] = _Case(question)
            print("{}", flush=True)
        else:
            case = cases[question["case"]]
            limits = {"seconds": question["seconds"], "patience_s": question["patience_s"]}
            print(json.dumps(case.answer(question["turns"], **limits)), flush=True)


main()
