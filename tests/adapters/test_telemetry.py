import logging
import time
from pathlib import Path

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gpadapters import telemetry
from gpadapters.telemetry import Telemetry, as_markdown
from gpcore.budgets import Budget
from gpcore.conditions import Condition
from gpcore.control import Rules, State, Transition, step
from gpcore.decisions import Rejected, ViewStale
from gpcore.events import (
    Apply,
    Event,
    HandedOver,
    LedgerSaved,
    Listed,
    Mark,
    Marked,
    Reply,
    Save,
    Seen,
    StepApplied,
    StepRefused,
    Submitted,
    Ticked,
)
from gpcore.pools import Deployment, ParticipantId, Pool, PoolKey, Role, Snapshot
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.testing.settled import FENCE, settled_state

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
A = ParticipantId("ns", "a")


def deployment(name: str = "a", replicas: int = 4, gpus: int | None = 1) -> Deployment:
    participant = ParticipantId("ns", name)
    pool = Pool(PoolKey(participant, Role.PREFILL), replicas, gpus, present=replicas, ready=replicas, fence=FENCE)
    return Deployment(participant, (pool,))


def marked(shown: Deployment, fence: str) -> Deployment:
    return attrs.evolve(shown, pools=tuple(attrs.evolve(pool, fence=fence) for pool in shown.pools))


def to(replicas: int) -> ScaleRequest:
    return ScaleRequest(Claimed("x" * 300), A, (Target(Role.PREFILL, replicas),))


@attrs.define
class Heard:
    """A planner that leads over two deployments, whose events are heard, and a clock; each save is stored at once."""

    telemetry: Telemetry
    now: float = 100.0
    state: State = attrs.field(
        factory=lambda: settled_state(Rules(budget=Budget(2, 10)), Snapshot.of([deployment(), deployment("b")]))
    )
    orders: list[Apply] = attrs.field(factory=list)

    @classmethod
    def begun(cls) -> "Heard":
        heard = cls(Telemetry(version="1.2.3", clock=lambda: heard.now))
        heard.happen(Listed((deployment(), deployment("b"))))
        return heard

    def happen(self, event: Event) -> Transition:
        transition = step(self.state, event)
        self.state = transition.state
        self.telemetry.hear(event, transition)
        self.orders += [one for one in transition.effects if isinstance(one, Apply)]
        for save in [one for one in transition.effects if isinstance(one, Save)]:
            self.happen(LedgerSaved(f"after {save.expected}"))
        return transition

    def lands(self) -> None:
        """Let the one order be seen and answered."""
        (order,) = self.orders
        assert order.step.fence is not None
        shown = deployment(replicas=order.step.changes[0].after)
        self.happen(Seen(marked(shown, order.step.fence.new)))
        self.happen(StepApplied(order.operation, order.step))

    def values(self) -> dict[tuple[str, ...], float]:
        families = text_string_to_metric_families(self.telemetry.exposition().decode())
        return {
            (one.name, *(text for _, text in sorted(one.labels.items()))): one.value
            for family in families
            for one in family.samples
        }


def test_everything_is_there_and_zero_before_anything_happens() -> None:
    values = Telemetry(version="1.2.3").exposition().decode()
    for name, (kind, _) in telemetry.METRICS.items():
        shown = name.removesuffix("_total") if kind == "counter" else name
        assert f"# TYPE {name if kind != 'info' else 'gp_build_info'} " in values or shown in values
    assert f'{telemetry.REQUESTS}{{reason="budget_exceeded",result="rejected"}} 0.0' in values
    assert 'gp_build_info{version="1.2.3"} 1.0' in values
    assert "gp_ready 0.0" in values
    assert "gp_watch_age_seconds +Inf" in values


def test_the_budget_and_what_counts_are_read_off_the_state() -> None:
    heard = Heard.begun()
    heard.now += 5
    values = heard.values()
    assert values["gp_budget_floor_gpus",] == 2
    assert values["gp_budget_ceiling_gpus",] == 10
    assert values["gp_charged_gpus",] == 8
    assert values["gp_headroom_gpus",] == 2
    assert values["gp_ready",] == 1
    assert values["gp_watch_age_seconds",] == 5
    assert values[telemetry.DGD_GPUS, "ns/a"] == 4
    heard.happen(Seen(deployment(replicas=5)))
    heard.happen(Seen(deployment("c", gpus=None)))
    values = heard.values()
    assert (values["gp_watch_age_seconds",], values[telemetry.DGD_GPUS, "ns/a"], values["gp_unknown_shapes",]) == (
        0,
        5,
        1,
    )


def test_a_cluster_that_is_followed_and_does_not_change_is_not_silent() -> None:
    followed = Telemetry(clock=lambda: 100.0, silence=lambda: 2.0)
    assert "gp_watch_age_seconds +Inf" in followed.exposition().decode()
    followed.hear(event := Listed(()), step(State(), event))
    assert "gp_watch_age_seconds 0.0" in followed.exposition().decode()
    later = Telemetry(clock=iter([0.0, 100.0]).__next__, silence=lambda: 2.0)
    later.hear(event, step(State(), event))
    assert "gp_watch_age_seconds 2.0" in later.exposition().decode()


def test_what_the_planner_runs_without_is_counted_by_kind() -> None:
    missing = [
        Condition("watch_forbidden", "one"),
        Condition("watch_forbidden", "two"),
        Condition("no_ledger", "three"),
    ]
    values = Telemetry(conditions=lambda: missing).exposition().decode()
    assert 'gp_conditions{kind="watch_forbidden"} 2.0' in values
    assert 'gp_conditions{kind="no_ledger"} 1.0' in values


def test_without_a_ceiling_there_is_any_headroom() -> None:
    heard = Heard.begun()
    heard.state = State()
    heard.happen(Listed(()))
    assert heard.values()["gp_budget_ceiling_gpus",] == heard.values()["gp_headroom_gpus",] == float("inf")


def test_a_request_is_counted_timed_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gpadapters.telemetry")
    heard = Heard.begun()
    heard.happen(Submitted("d-1", to(6), heard.now))
    assert heard.values()["gp_operations",] == 1
    heard.now += 0.3
    heard.lands()
    values = heard.values()
    assert values[telemetry.REQUESTS, "success", "success"] == 1
    assert values["gp_decisions_total", "", "approved"] == 1
    assert values[f"{telemetry.LATENCY}_bucket", "0.1", "success"] == 0
    assert values[f"{telemetry.LATENCY}_bucket", "0.5", "success"] == 1
    (record,) = caplog.records
    assert record.getMessage() == "approved: ns/a/prefill 4 to 6, total 10 GPUs when done"
    fields = {name: value for name, value in vars(record).items() if name.startswith("gp_")}
    assert fields == {
        "gp_decision_id": "d-1",
        "gp_status": "approved",
        "gp_caller": "x" * 256,
        "gp_participant": "ns/a",
        "gp_asked": "prefill=6",
        "gp_operation": "d-1",
        "gp_total_after": "10",
    }


def test_a_refusal_is_counted_by_its_reason_and_as_the_peer_would(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gpadapters.telemetry")
    heard = Heard.begun()
    heard.happen(Submitted("d-1", to(7), heard.now))
    values = heard.values()
    assert values["gp_decisions_total", "above_ceiling", "rejected"] == 1
    assert values[telemetry.REQUESTS, "budget_exceeded", "rejected"] == 1
    assert values["gp_intents",] == 1
    (record,) = caplog.records
    assert vars(record)["gp_reason"] == "above_ceiling"


def test_a_failure_is_an_exception_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard.begun()
    heard.happen(Submitted("d-1", to(6), heard.now))
    refused = [
        effect for one in heard.orders for effect in heard.happen(StepRefused("d-1", one.step, "no\nway")).effects
    ]
    (mark,) = (effect for effect in refused if isinstance(effect, Mark))
    heard.happen(Seen(marked(deployment(), mark.new)))
    heard.happen(Marked(mark))
    assert heard.values()[telemetry.REQUESTS, "exception", "error"] == 1
    assert caplog.records[-1].levelname == "WARNING"


def test_what_the_server_refuses_is_counted_by_kind() -> None:
    heard = Heard.begun()
    heard.telemetry.refused("malformed", "x" * 100_000)
    values = heard.values()
    assert (values["gp_refusals_total", "malformed"], values[telemetry.REQUESTS, "client", "error"]) == (1, 1)


def test_an_answer_to_nobody_known_is_counted_and_not_timed() -> None:
    heard = Heard.begun()
    reason = ViewStale()
    heard.telemetry.hear(Ticked(1.0), Transition(heard.state, (Reply("d-9", Rejected(reason)),)))
    assert heard.values()[telemetry.REQUESTS, "view_stale", "rejected"] == 1


def test_an_operation_that_is_handed_over_is_no_failure_of_ours() -> None:
    heard = Heard.begun()
    heard.telemetry.hear(Ticked(1.0), Transition(heard.state, (Reply("d-9", HandedOver("d-9")),)))
    assert heard.values()[telemetry.REQUESTS, "handed_over", "rejected"] == 1


def test_the_ledger_is_read_off_the_state() -> None:
    heard = Heard.begun()
    values = heard.values()
    told = ("gp_leading", "gp_ledger_epoch", "gp_ledger_fault", "gp_ledger_gpus", "gp_unsettled_objects")
    assert [values[name,] for name in told] == [1, 1, 0, 8, 0]
    heard.happen(Seen(deployment(replicas=7)))
    heard.happen(Seen(attrs.evolve(deployment("c"), pools=())))
    values = heard.values()
    assert [values[name,] for name in ("gp_over_committed_gpus", "gp_unsettled_objects")] == [1, 0]


def test_beyond_the_limit_deployments_share_one_series() -> None:
    heard = Heard.begun()
    many = telemetry.MAX_NAMES + 10
    heard.happen(Listed(tuple(deployment(f"d{n:04}", replicas=1) for n in range(many))))
    names = [key for key in heard.values() if key[0] == telemetry.DGD_GPUS]
    assert len(names) == telemetry.MAX_NAMES + 1
    assert heard.values()[telemetry.DGD_GPUS, telemetry.OTHERS] == 10


def test_hearing_of_a_request_costs_little_in_a_large_fleet() -> None:
    heard = Heard.begun()
    heard.happen(Listed(tuple(deployment(f"d{n:04}", replicas=1) for n in range(5000))))
    event = Ticked(1.0)
    transition = Transition(heard.state)
    began = time.perf_counter()
    for _ in range(1000):
        heard.telemetry.hear(event, transition)
    assert time.perf_counter() - began < 0.5


def test_the_page_of_the_reference_is_current() -> None:
    assert PAGE.read_text() == as_markdown(), "write it anew: python -m tests.adapters.test_telemetry"


if __name__ == "__main__":
    PAGE.write_text(as_markdown())
