"""What the router on Dynamo's runtime counts, told on the runtime's own `/metrics`.

Rules of this file: nothing here allocates per request; labels come from configuration only. The routers of the pools
count what they serve under the peer's names, so here those names count only what no pool's router has seen.
"""

from collections.abc import Iterable, Iterator

from gpadapters.dynamo.router_pools import Pool, Standing

STARTED = "dynamo_component_router_requests_started_total"


class PoolCounts:
    """What is counted of one pool."""

    __slots__ = ("attempts", "cut", "failed", "labels", "missed", "ok", "refused", "routed")

    def __init__(self, role: str, namespace: str, router: str) -> None:
        """Begin at 0; the peer writes its namespaces with underscores."""
        component = "backend" if role == "agg" else role
        names = {"dynamo_namespace": namespace.replace("-", "_"), "dynamo_component": component, "router_id": router}
        self.labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in names.items())
        self.routed = self.missed = self.attempts = self.ok = self.refused = self.failed = self.cut = 0


class Counts:
    """What is counted of all requests together."""

    __slots__ = ("refused", "retries", "retries_denied", "waiting")

    def __init__(self) -> None:
        """Begin at 0."""
        self.retries = 0
        self.retries_denied = 0
        self.waiting = 0
        self.refused: dict[int, int] = {}


def exposition(counts: Counts, pools: Iterable[tuple[Pool, PoolCounts]], now: float) -> str:
    """Return everything as Prometheus reads it."""
    return "\n".join([*_of_all(counts), *_of_pools(list(pools), now)]) + "\n"


def _of_all(counts: Counts) -> Iterator[str]:
    for name, kind, about, value in (
        ("gp_router_retries_total", "counter", "Requests that were tried again.", counts.retries),
        ("gp_router_retries_denied_total", "counter", "Retries that the budget did not allow.", counts.retries_denied),
        ("gp_router_waiting", "gauge", "Requests that wait for a first replica.", counts.waiting),
    ):
        yield from _header(name, kind, about)
        yield f"{name} {value}"
    yield from _header("gp_router_refused_total", "counter", "Answers of the router itself.")
    for status, count in sorted(counts.refused.items()):
        yield f'gp_router_refused_total{{status="{status}"}} {count}'


def _of_pools(pools: list[tuple[Pool, PoolCounts]], now: float) -> Iterator[str]:
    for name, about, field in (
        (STARTED, "Requests that found nobody in the pool which the grid chose for them.", "missed"),
        ("gp_router_routed_total", "Requests for which the grid chose this pool, wherever they went.", "routed"),
        ("gp_router_attempts_total", "Requests sent to a router of this pool, tried again or not.", "attempts"),
    ):
        yield from _header(name, "counter", about)
        yield from (f"{name}{{{one.labels}}} {getattr(one, field)}" for _, one in pools)
    yield from _header("gp_router_outcomes_total", "counter", "How attempts ended.")
    for outcome in ("ok", "refused", "failed", "cut"):
        for _, one in pools:
            yield f'gp_router_outcomes_total{{{one.labels},outcome="{outcome}"}} {getattr(one, outcome)}'
    yield from _header("gp_router_endpoints", "gauge", "Routers of a pool.")
    yield from (f"gp_router_endpoints{{{one.labels}}} {len(pool.instances)}" for pool, one in pools)
    yield from _header("gp_router_in_flight", "gauge", "Requests under way in a pool.")
    for pool, one in pools:
        yield f"gp_router_in_flight{{{one.labels}}} {sum(instance.outstanding for instance in pool.instances)}"
    yield from _header("gp_router_pool_condition", "gauge", "The condition that a pool is in.")
    for pool, one in pools:
        found: Standing = pool.standing(now)
        yield f'gp_router_pool_condition{{{one.labels},condition="{found.value}"}} 1'


def _header(name: str, kind: str, about: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
