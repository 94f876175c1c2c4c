"""The peer's side of `route`, run in the peer's environment: it answers lines of JSON.

A line with a strategy makes one; a line with requests has its `select_pool` choose for each of them, and the answer
says what was chosen and how long one choice took.
"""

import json
import sys
import time
from typing import Any

from dynamo.global_router import pool_selection

_KINDS = {
    "prefill": pool_selection.PrefillPoolSelectionStrategy,
    "decode": pool_selection.DecodePoolSelectionStrategy,
    "agg": pool_selection.AggPoolSelectionStrategy,
}


def _strategy(phase: str, document: dict[str, Any]) -> Any:  # noqa: ANN401 - the peer's
    rules = [pool_selection.PriorityPoolOverride(**rule) for rule in document.pop("priority_overrides", [])]
    return _KINDS[phase](**document, priority_overrides=rules)


def _timed(strategy: Any, requests: list[Any]) -> dict[str, Any]:  # noqa: ANN401 - the peer's
    select = strategy.select_pool
    start = time.perf_counter()
    for request in requests:
        select(*request)
    took = time.perf_counter() - start
    return {"seconds": took / len(requests), "pools": [select(*request) for request in requests]}


def main() -> None:
    """Answer every line of standard input."""
    strategies: dict[str, Any] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if "strategy" in question:
            strategies[question["case"]] = _strategy(question["phase"], question["strategy"])
            answer: dict[str, Any] = {}
        else:
            answer = _timed(strategies[question["case"]], question["requests"])
        print(json.dumps(answer), flush=True)


main()
