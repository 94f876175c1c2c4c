"""The peer's rules for choosing a pool, written straight from their formula and as slowly as they read.

It works on the document of a configuration, not on what was read from it, so that reading is checked too. Where the
peer would crash, this raises.
"""

from typing import Any

AXES = {"prefill": ("isl", "ttft"), "decode": ("context_length", "itl"), "agg": ("isl", "ttft", "itl")}


def selected(document: dict[str, Any], phase: str, request: dict[str, Any]) -> tuple[int, list[int], list[int] | None]:
    """Return the pool, the order in which pools are tried, and the cell."""
    strategy = document[f"{phase}_pool_selection_strategy"]
    cells = strategy[f"{phase}_pool_mapping"]
    place = []
    for axis in AXES[phase]:
        unit = "_ms" if axis in {"ttft", "itl"} else ""
        if f"{axis}_min{unit}" in strategy:
            low, high, bins = (strategy[f"{axis}_{part}"] for part in (f"min{unit}", f"max{unit}", "resolution"))
            value = request.get(axis)
            if value is None and axis != "isl":
                value = (low + high) / 2
            elif value is None and phase == "agg":
                value = (low + high) // 2
            step = (high - low) / bins
            at = max(0, min(int((value - low) / step), bins - 1))
            cells = cells[at]
            place.append(at)
    pool = cells
    priority = request.get("priority")
    if priority is not None:
        for rule in strategy.get("priority_overrides", []):
            if rule["min_priority"] <= priority <= rule["max_priority"]:
                pool = rule["target_pool"]
                break
    return pool, _order(document, phase, pool), place


def _order(document: dict[str, Any], phase: str, pool: int) -> list[int]:
    """Return the pool, then every strictly faster one, the nearest first, and equals by their index."""
    if not document.get("enable_priority_retry", False):
        return [pool]
    count = document[f"num_{phase}_pools"]
    priorities = document.get(f"{phase}_pool_priorities") or list(range(count))
    order = [pool]
    for number in sorted({one for one in priorities if one < priorities[pool]}, reverse=True):
        order += [at for at in range(count) if priorities[at] == number]
    return order
