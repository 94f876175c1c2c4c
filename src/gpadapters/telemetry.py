"""What happened, as metrics and as one log line for each decision.

Rules of this file: it listens and changes nothing. A request costs a few counters, whatever the size of the fleet;
what is read off the state is read when somebody asks for the metrics. No label's values come from callers.
"""

import logging
import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import assert_never

import attrs
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from gpcore.conditions import Condition, conditions
from gpcore.control import State, Transition
from gpcore.decisions import (
    INVALID,
    Approved,
    CallerRefused,
    CeilingBreach,
    FloorBreach,
    NotReady,
    NotYours,
    PolicyBroken,
    Reason,
    Rejected,
    explain,
)
from gpcore.events import (
    Decided,
    Event,
    Failed,
    Gone,
    HandedOver,
    Listed,
    Noted,
    Outcome,
    Repeated,
    Reply,
    Seen,
    Submitted,
    Succeeded,
)
from gpcore.pools import Snapshot

log = logging.getLogger(__name__)

REQUESTS = "dynamo_planner_global_scale_request_total"
LATENCY = "dynamo_planner_global_scale_request_latency_seconds"
DGD_GPUS = "dynamo_planner_global_managed_dgd_gpus"

METRICS: Mapping[str, tuple[str, str]] = {
    REQUESTS: ("counter", "Scale requests answered, by result and reason."),
    LATENCY: ("histogram", "From the arrival of a scale request to its end, by result."),
    DGD_GPUS: ("gauge", "GPUs charged to each deployment (namespace/name); those beyond the limit together."),
    "gp_decisions_total": ("counter", "Decisions made, by status and kind of reason."),
    "gp_refusals_total": ("counter", "Requests that were refused before they were decided, by kind."),
    "gp_budget_floor_gpus": ("gauge", "The fewest GPUs that the fleet should keep."),
    "gp_budget_ceiling_gpus": ("gauge", "The most GPUs that the fleet may use; +Inf where there is no ceiling."),
    "gp_charged_gpus": ("gauge", "GPUs that count against the ceiling."),
    "gp_least_gpus": ("gauge", "GPUs that count toward the floor."),
    "gp_headroom_gpus": ("gauge", "GPUs that may still be acquired; negative above the ceiling."),
    "gp_intents": ("gauge", "Wishes that are remembered and not met."),
    "gp_operations": ("gauge", "Operations under way."),
    "gp_leading": ("gauge", "1 while this planner decides."),
    "gp_ledger_epoch": ("gauge", "How many planners have taken the ledger over, one after the other."),
    "gp_ledger_fault": ("gauge", "1 while the ledger cannot be read or written, so nothing is promised."),
    "gp_ledger_gpus": ("gauge", "GPUs that the pools may have by the ledger, with what is held in escrow."),
    "gp_ledger_bytes": ("gauge", "The size of the ledger as it is stored."),
    "gp_ledger_full": ("gauge", "1 from 60 % of 1 MiB on: no new pool is taken in. Declare another budget domain."),
    "gp_over_committed_gpus": ("gauge", "GPUs by which others have taken the pools above the ceiling."),
    "gp_unsettled_objects": ("gauge", "Objects that are not yet as the ledger has them; nothing may grow meanwhile."),
    "gp_unknown_shapes": ("gauge", "Deployments whose GPUs are not all known; nothing may grow while there are any."),
    "gp_conditions": ("gauge", "What holds the planner back, or what it runs without, by kind."),
    "gp_ready": ("gauge", "1 while requests can be decided on a current view."),
    "gp_watch_age_seconds": ("gauge", "Since the cluster was last heard of; +Inf before it was."),
    "gp_build_info": ("info", "The version that runs."),
}
"""Every metric: its type and what it says."""

BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0)
MAX_NAMES = 500
"""The most deployments that have a series of their own."""

OTHERS = "(others)"

_VALUE = 256
_MESSAGE = 4096
_KINDS = tuple(reason.kind for reason in Reason.__args__)
_CLIENT = ("error", "client")
_BROKEN = ("error", "exception")
_RESULTS: Mapping[str, tuple[str, str]] = {
    **{kind: ("rejected", kind) for kind in _KINDS},
    **{kind.kind: _CLIENT for kind in INVALID},
    **dict.fromkeys((CeilingBreach.kind, FloorBreach.kind), ("rejected", "budget_exceeded")),
    **dict.fromkeys((CallerRefused.kind, NotYours.kind), ("error", "not_authorized")),
    "handed_over": ("rejected", "handed_over"),
    "repeated": ("success", "repeated"),
    NotReady.kind: ("error", "not_ready"),
    PolicyBroken.kind: _BROKEN,
}
"""How the peer's two labels tell each kind of refusal."""


class Telemetry:
    """Count, time and log what the planner does: its `hear` is a listener, its `refused` is the HTTP server's.

    *silence* tells for how many seconds nothing was heard of the cluster, where the observer knows better than that
    nothing has changed. *conditions* gives what it runs without.
    """

    def __init__(
        self,
        *,
        version: str = "0",
        clock: Callable[[], float] = time.monotonic,
        silence: Callable[[], float] | None = None,
        conditions: Callable[[], Iterable[Condition]] = tuple,
    ) -> None:
        self._clock = clock
        self._arrived: dict[str, float] = {}
        self._view = _View(version, clock, silence, conditions)
        self._registry = CollectorRegistry()
        self._registry.register(self._view)
        self._requests = self._counter(REQUESTS, "result", "reason")
        self._decisions = self._counter("gp_decisions_total", "status", "reason")
        self._refusals = self._counter("gp_refusals_total", "kind")
        self._latency = Histogram(LATENCY, METRICS[LATENCY][1], ["result"], buckets=BUCKETS, registry=self._registry)
        for result in ("success", "rejected", "error"):
            self._latency.labels(result)
        for labels in {("success", "success"), _CLIENT, _BROKEN, *_RESULTS.values()}:
            self._requests.labels(*labels)
        for labels in (("approved", ""), *(("rejected", kind) for kind in _KINDS)):
            self._decisions.labels(*labels)

    def hear(self, event: Event, transition: Transition) -> None:
        """Take note of *event* and of what it led to."""
        self._view.state = transition.state
        if isinstance(event, Submitted):
            self._arrived[event.id] = event.now
        elif isinstance(event, Listed | Seen | Gone):
            self._view.shown_at = self._clock()
        for effect in transition.effects:
            if isinstance(effect, Decided):
                self._decided(effect)
            elif isinstance(effect, Reply) and not isinstance(effect.outcome, Noted):
                self._answered(effect.id, effect.outcome)

    def refused(self, kind: str, message: str) -> None:
        """Take note of a request that was refused before it was decided; *kind* is one of a fixed few."""
        self._requests.labels(*_CLIENT).inc()
        self._refusals.labels(kind).inc()
        log.info("%s", message[:_MESSAGE], extra={"gp_status": "refused", "gp_reason": kind})

    def exposition(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(name, METRICS[name][1], labels, registry=self._registry)

    def _decided(self, decided: Decided) -> None:
        request, decision = decided.request, decided.decision
        status, reason = ("rejected", decision.reason.kind) if isinstance(decision, Rejected) else ("approved", "")
        self._decisions.labels(status, reason).inc()
        asked = ",".join(f"{target.role.value}={target.replicas}" for target in request.targets)
        fields = {
            "gp_decision_id": decided.id,
            "gp_status": status,
            "gp_caller": str(request.caller),
            "gp_participant": str(request.participant),
            "gp_asked": asked,
            **({"gp_reason": reason} if reason else {}),
            **({"gp_operation": decided.operation} if decided.operation else {}),
            **({"gp_total_after": str(decision.totals.charged)} if isinstance(decision, Approved) else {}),
        }
        cut = {name: value[:_VALUE] for name, value in fields.items()}
        log.info("%s", explain(decision, participant=request.participant)[:_MESSAGE], extra=cut)

    def _answered(self, key: str, outcome: Outcome) -> None:
        result, reason = _result(outcome)
        self._requests.labels(result, reason).inc()
        arrived = self._arrived.pop(key, None)
        if arrived is not None:
            self._latency.labels(result).observe(self._clock() - arrived)
        if isinstance(outcome, Failed):
            extra = {"gp_decision_id": key[:_VALUE], "gp_status": "failed"}
            log.warning("%s", outcome.problem[:_MESSAGE], extra=extra)


@attrs.define(eq=False)
class _View(Collector):
    """Read the gauges off the last state, when they are asked for."""

    version: str
    clock: Callable[[], float]
    silence: Callable[[], float] | None = None
    conditions: Callable[[], Iterable[Condition]] = tuple
    state: State = attrs.field(factory=State)
    shown_at: float = float("-inf")

    def describe(self) -> Iterator[Metric]:
        """Return nothing to look for twins with: the names are this module's own."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield each gauge with its value now."""
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(name, METRICS[name][1], value=value)
        yield self._deployments()
        yield self._conditions()
        yield InfoMetricFamily("gp_build", METRICS["gp_build_info"][1], value={"version": self.version})

    def _gauges(self) -> dict[str, float]:
        state, budget = self.state, self.state.rules.budget
        snapshot = state.snapshot or Snapshot()
        headroom = budget.headroom(snapshot.totals)
        return {
            "gp_budget_floor_gpus": budget.floor,
            "gp_budget_ceiling_gpus": float("inf") if budget.ceiling is None else budget.ceiling,
            "gp_charged_gpus": snapshot.totals.charged,
            "gp_least_gpus": snapshot.totals.least,
            "gp_headroom_gpus": float("inf") if headroom is None else headroom,
            "gp_intents": len(state.intents),
            "gp_operations": len(state.operations),
            "gp_leading": state.leading,
            "gp_ledger_epoch": state.ledger.epoch,
            "gp_ledger_fault": bool(state.fault),
            "gp_ledger_gpus": state.ledger.totals.charged,
            "gp_ledger_bytes": 0 if state.book is None else state.book.size,
            "gp_ledger_full": state.book is not None and state.book.full,
            "gp_over_committed_gpus": state.ledger.excess,
            "gp_unsettled_objects": len(state.behind) + sum(1 for _ in state.ledger.adoptions()),
            "gp_unknown_shapes": len(snapshot.unknown),
            "gp_ready": state.ready,
            "gp_watch_age_seconds": self._silence(),
        }

    def _conditions(self) -> Metric:
        family = GaugeMetricFamily("gp_conditions", METRICS["gp_conditions"][1], labels=["kind"])
        there = (*conditions(self.state), *self.conditions())
        for kind, count in sorted(Counts(one.kind for one in there).items()):
            family.add_metric([kind], count)
        return family

    def _silence(self) -> float:
        unchanged = self.clock() - self.shown_at
        return unchanged if self.silence is None or unchanged == float("inf") else min(unchanged, self.silence())

    def _deployments(self) -> Metric:
        family = GaugeMetricFamily(DGD_GPUS, METRICS[DGD_GPUS][1], labels=["dgd_name"])
        deployments = (self.state.snapshot or Snapshot()).deployments()
        charged = sorted((str(one.id), one.totals.charged) for one in deployments)
        for name, gpus in charged[:MAX_NAMES]:
            family.add_metric([name], gpus)
        if len(charged) > MAX_NAMES:
            family.add_metric([OTHERS], sum(gpus for _, gpus in charged[MAX_NAMES:]))
        return family


def as_markdown() -> str:
    """Return the page of the reference."""
    rows = (f"| `{name}` | {kind} | {meaning} |" for name, (kind, meaning) in METRICS.items())
    return "\n".join([*_HEAD, *rows, ""])


_HEAD = (
    "# Metrics",
    "",
    "What `GET /metrics` shows. The names that begin with `dynamo_` are the peer's. This page is generated from",
    "`gpadapters.telemetry`; a test says whether it is current.",
    "",
    "| name | type | meaning |",
    "|---|---|---|",
)


def _result(outcome: Outcome) -> tuple[str, str]:
    match outcome:
        case Succeeded():
            return "success", "success"
        case Rejected(reason):
            return _RESULTS[reason.kind]
        case HandedOver():
            return "rejected", "handed_over"
        case Repeated():
            return "success", "repeated"
        case Failed():
            return _BROKEN
        case _:
            assert_never(outcome)
