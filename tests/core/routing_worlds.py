"""Configurations of the router and requests to it, for Hypothesis: valid ones, with a liking for the edges of bins."""

import math
from typing import Any

from hypothesis import strategies as st

Document = dict[str, Any]

LENGTHS = st.integers(-1_000, 40_000)
MOMENTS = st.one_of(st.integers(-100, 5_000), st.floats(-1e3, 1e6, allow_subnormal=False))
SMALL = st.integers(-3, 12)


@st.composite
def axis(draw: st.DrawFn, name: str, bounds: st.SearchStrategy[float]) -> Document:
    """Return the part of a strategy that is about one axis."""
    low = draw(bounds)
    unit = "_ms" if name in {"ttft", "itl"} else ""
    width = draw(st.one_of(st.integers(1, 40_000), st.sampled_from([0.1, 0.3, 7.7, 1e5 / 3])))
    bins = draw(st.integers(1, 9))
    return {f"{name}_min{unit}": low, f"{name}_max{unit}": low + width, f"{name}_resolution": bins}


@st.composite
def rules(draw: st.DrawFn, pools: int) -> list[Document]:
    """Return priority overrides."""
    given = []
    for _ in range(draw(st.integers(0, 3))):
        low = draw(SMALL)
        target = draw(st.integers(0, pools - 1))
        given.append({"min_priority": low, "max_priority": low + draw(st.integers(0, 5)), "target_pool": target})
    return given


@st.composite
def strategy(draw: st.DrawFn, phase: str, names: tuple[str, ...], pools: int) -> Document:
    """Return how one phase chooses."""
    made: Document = {}
    shape = []
    for name in names:
        made |= draw(axis(name, MOMENTS if name in {"ttft", "itl"} else LENGTHS))
        shape.append(made[f"{name}_resolution"])
    made[f"{phase}_pool_mapping"] = draw(_mapping(shape, pools))
    if draw(st.booleans()):
        made["priority_overrides"] = draw(rules(pools))
    return made


def _mapping(shape: list[int], pools: int) -> st.SearchStrategy[Any]:
    cell: st.SearchStrategy[Any] = st.integers(0, pools - 1)
    for bins in reversed(shape):
        cell = st.lists(cell, min_size=bins, max_size=bins)
    return cell


@st.composite
def configurations(draw: st.DrawFn, mode: str | None = None) -> Document:
    """Return a configuration that the peer serves."""
    mode = mode or draw(st.sampled_from(["disagg", "agg"]))
    made: Document = {"mode": mode, "enable_priority_retry": draw(st.booleans())}
    agg = draw(st.sampled_from([("ttft", "itl"), ("isl", "ttft", "itl")]))
    phases = {"prefill": ("isl", "ttft"), "decode": ("context_length", "itl")} if mode == "disagg" else {"agg": agg}
    for phase, names in phases.items():
        pools = draw(st.integers(1, 4))
        made[f"num_{phase}_pools"] = pools
        made[f"{phase}_pool_dynamo_namespaces"] = [f"{phase}-{at}" for at in range(pools)]
        if draw(st.booleans()):
            made[f"{phase}_pool_priorities"] = draw(st.lists(SMALL, min_size=pools, max_size=pools))
        made[f"{phase}_pool_selection_strategy"] = draw(strategy(phase, names, pools))
    return made


@st.composite
def near(draw: st.DrawFn, part: Document, name: str) -> float:
    """Return a value on, or right beside, an edge of one of the bins of *name*."""
    unit = "_ms" if name in {"ttft", "itl"} else ""
    low: float = part[f"{name}_min{unit}"]
    high: float = part[f"{name}_max{unit}"]
    bins: int = part[f"{name}_resolution"]
    edge = low + draw(st.integers(-1, bins + 1)) * ((high - low) / bins)
    edge = draw(st.sampled_from([edge, high - (high - edge), math.floor(edge)]))
    return draw(st.sampled_from([float(edge), math.nextafter(edge, -math.inf), math.nextafter(edge, math.inf)]))


@st.composite
def requests(draw: st.DrawFn, document: Document, phase: str) -> Document:
    """Return a request that the peer answers."""
    part = document[f"{phase}_pool_selection_strategy"]
    names = [name for name in ("isl", "context_length", "ttft", "itl") if f"{name}_resolution" in part]
    made: Document = {}
    for name in names:
        anything = st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e12, 1e12))
        said = draw(st.one_of(near(part, name), anything, st.none()))
        needed = said is None and phase != "agg" and name in {"isl", "context_length"}
        made[name] = draw(st.integers(0, 50_000)) if needed else said
    made["priority"] = draw(st.one_of(st.none(), SMALL, st.floats(-3, 12), st.just(2**63)))
    return made


def chosen_phase(document: Document) -> st.SearchStrategy[str]:
    """Return one of the phases that *document* is about."""
    return st.sampled_from(["prefill", "decode"] if document["mode"] == "disagg" else ["agg"])
