"""What the router counts, cheaply: plain numbers while serving, text when somebody asks.

Rules of this file: nothing here allocates per request; names and labels are the peer's where it has a series for it
(`dynamo_component_router_*`), and `gp_router_*` where it has none; labels come from configuration only.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
GAPS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 5.0)
TOKENS = (50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0, 32000.0, 64000.0, 128000.0)


class Histogram:
    """Count values by upper bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin empty."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count *value*, as often as *times*."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Yield it as Prometheus reads it."""
        below = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            below += count
            shown = "+Inf" if bound == float("inf") else repr(bound)
            yield f'{name}_bucket{{{labels},le="{shown}"}} {below}'
        yield f"{name}_sum{{{labels}}} {self.total!r}"
        yield f"{name}_count{{{labels}}} {below}"


class PoolMeasures:
    """What is counted of one pool."""

    __slots__ = (
        "attempts",
        "disconnects",
        "input_tokens",
        "itl",
        "labels",
        "misroutes",
        "outcomes",
        "output_tokens",
        "requests",
        "routed",
        "shed",
        "started",
        "ttft",
    )

    def __init__(self, namespace: str, component: str, router_id: str) -> None:
        """Begin at 0; the peer writes its namespaces with underscores."""
        shown = (namespace.replace("-", "_"), component, router_id)
        names = ("dynamo_namespace", "dynamo_component", "router_id")
        self.labels = ",".join(f'{name}="{escaped(value)}"' for name, value in zip(names, shown, strict=True))
        self.labels += ',worker_id="all"'
        self.started = 0
        self.requests = 0
        self.routed = 0
        self.attempts = 0
        self.shed = 0
        self.misroutes = 0
        self.disconnects = 0
        self.outcomes: dict[str, int] = {"ok": 0, "client_error": 0, "server_error": 0, "cut": 0}
        self.ttft = Histogram(SECONDS)
        self.itl = Histogram(GAPS)
        self.input_tokens = Histogram(TOKENS)
        self.output_tokens = Histogram(TOKENS)


class RouterMeasures:
    """What is counted of the router as a whole."""

    __slots__ = ("connections", "kept_connections", "refused", "reloads", "requests", "retries", "retries_denied")

    def __init__(self) -> None:
        """Begin at 0."""
        self.requests = 0
        self.connections = 0
        self.kept_connections = 0
        self.retries = 0
        self.retries_denied = 0
        self.refused: dict[int, int] = {}
        self.reloads: dict[str, int] = {"ok": 0, "failed": 0}


_PEER = "dynamo_component_router_"
_COUNTERS = (
    (f"{_PEER}requests_total", "Requests that ended.", "requests"),
    (f"{_PEER}requests_started_total", "Requests that began, those that wait for a replica too.", "started"),
    ("gp_router_routed_total", "Requests for which the grid chose this pool, wherever they went.", "routed"),
    ("gp_router_attempts_total", "Requests sent to an endpoint, tried again or not.", "attempts"),
    ("gp_router_shed_total", "Requests turned away because the pool was full.", "shed"),
    ("gp_router_disconnects_total", "Clients that left before their answer was complete.", "disconnects"),
    ("gp_router_misroutes_total", "Requests that the measured length would have sent elsewhere.", "misroutes"),
)
_HISTOGRAMS = (
    (f"{_PEER}time_to_first_token_seconds", "From the whole request to the first byte of its answer.", "ttft"),
    (f"{_PEER}inter_token_latency_seconds", "Between the events of a stream.", "itl"),
    (
        f"{_PEER}input_sequence_tokens",
        "Tokens of the prompt, as the engine counted or the router guessed.",
        "input_tokens",
    ),
    (f"{_PEER}output_sequence_tokens", "Tokens of the answer, as the engine counted or events.", "output_tokens"),
)


def pool_lines(pools: Iterable[PoolMeasures]) -> Iterator[str]:
    """Yield the series of *pools*."""
    measured = tuple(pools)
    for name, about, field in _COUNTERS:
        yield from header(name, "counter", about)
        yield from (f"{name}{{{one.labels}}} {getattr(one, field)}" for one in measured)
    for name, about, field in _HISTOGRAMS:
        yield from header(name, "histogram", about)
        for one in measured:
            yield from getattr(one, field).lines(name, one.labels)
    name = "gp_router_outcomes_total"
    yield from header(name, "counter", "How answers ended.")
    for one in measured:
        yield from (f'{name}{{{one.labels},outcome="{what}"}} {count}' for what, count in one.outcomes.items())


def router_lines(router: RouterMeasures) -> Iterator[str]:
    """Yield the series of the whole router."""
    for name, about, count in (
        ("gp_router_requests_total", "Requests that were read.", router.requests),
        ("gp_router_connections_total", "Connections of clients.", router.connections),
        ("gp_router_retries_total", "Requests that were tried again.", router.retries),
        ("gp_router_retries_denied_total", "Retries that the budget did not allow.", router.retries_denied),
    ):
        yield from header(name, "counter", about)
        yield f"{name} {count}"
    yield from labelled("gp_router_refused_total", "Answers of the router itself.", "status", router.refused)
    yield from labelled("gp_router_reloads_total", "Configurations that were read again.", "result", router.reloads)


def labelled(name: str, about: str, label: str, counts: Mapping[str, int] | Mapping[int, int]) -> Iterator[str]:
    """Yield one counter by one label."""
    yield from header(name, "counter", about)
    yield from (f'{name}{{{label}="{value}"}} {count}' for value, count in sorted(counts.items()))


def header(name: str, kind: str, about: str) -> tuple[str, str]:
    """Return the lines before a series."""
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def escaped(value: str) -> str:
    """Return *value* as the value of a label."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
