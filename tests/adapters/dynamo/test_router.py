"""The router with pools that behave as told; `tests/dynamo` does the same with Dynamo's own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpadapters.dynamo.router import Callee, Key, Router, keys, phases_of
from gpadapters.dynamo.router_measures import STARTED
from gpadapters.dynamo.router_pools import Bounds
from gpcore.routing import Phase, RoutingTable
from gpcore.wire import dumps, routing_config
from tests.routerworld.routers import aggregated, disaggregated

QUICK = Bounds(first_output_s=0.05, between_outputs_s=0.05, wait_for_replica_s=0.0)
WHOLE = ({"token_ids": [1]}, {"token_ids": [2]}, {"token_ids": [], "finish_reason": "stop"})
SLOW, FAST = {"ttft_target": 900.0}, {"ttft_target": 100.0}
LIMP = "Disconnected: gone"
GONE = "Connection refused (os error 111)"
NOBODY = "BackendUnknown: Exception: no endpoints available to route work"
WRONG = "BackendInvalidArgument: ValueError: n is 0"


class ToldError(Exception):
    """What a client is told."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@attrs.define
class Client:
    """Whoever waits for an answer, until it has *left*."""

    left: bool = False

    def is_stopped(self) -> bool:
        return self.left


@attrs.define
class FakePool:
    """Routers of one pool: each request gets the next of *answers*, the last one for ever."""

    answers: list[Sequence[object]] = attrs.field(factory=lambda: [WHOLE])
    ids: list[int] = attrs.field(factory=lambda: [1])
    asked: list[tuple[int, Any]] = attrs.field(factory=list)

    def instance_ids(self) -> list[int]:
        return self.ids

    async def direct(
        self, request: object, instance_id: int, *, annotated: bool, context: object
    ) -> AsyncIterator[Any]:
        assert not annotated
        assert context is not None
        self.asked.append((instance_id, request))
        return self._answer(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])

    async def _answer(self, items: Sequence[object]) -> AsyncIterator[Any]:
        for item in items:
            match item:
                case str():
                    raise ValueError(item)
                case float():
                    await asyncio.sleep(item)
                case _:
                    yield item


@attrs.define
class World:
    """A router and its pools."""

    router: Router
    pools: Mapping[Key, FakePool]

    async def ask(
        self, wish: Mapping[str, object] = FAST, phase: Phase = Phase.AGG, client: Client | None = None
    ) -> list[object]:
        payload = {"token_ids": [1, 2], "router": wish}
        return [item async for item in self.router.answer(phase, payload, client or Client())]

    async def refused(self, wish: Mapping[str, object] = FAST) -> ToldError:
        with pytest.raises(ToldError) as caught:
            await self.ask(wish)
        return caught.value

    def asked(self, name: str) -> int:
        return len(next(pool for (_, namespace), pool in self.pools.items() if namespace == name).asked)


def world(
    *, retry: bool = False, bounds: Bounds = QUICK, table: RoutingTable | None = None, **pools: FakePool
) -> World:
    """Return a router over pools `fast` and `slow`, or those of *table*."""
    table = table or routing_config(dumps(aggregated("fast", "slow", retry=retry))).table
    made = {key: pools.get(key[1]) or FakePool() for key in keys(table)}
    callees: Mapping[Key, Callee] = made
    return World(Router(table, callees, refuse=ToldError, bounds=bounds), made)


async def test_a_request_lands_in_the_pool_that_the_grid_names() -> None:
    here = world()
    assert await here.ask(FAST) == [*WHOLE]
    assert (here.asked("fast"), here.asked("slow")) == (1, 0)
    assert await here.ask(SLOW) == [*WHOLE]
    assert (here.asked("fast"), here.asked("slow")) == (1, 1)


async def test_input_and_output_each_land_in_a_pool_of_their_own() -> None:
    table = routing_config(dumps(disaggregated(["p", "q"], ["d", "e"]))).table
    here = world(table=table, q=FakePool([[{"disaggregated_params": {}}]]))
    assert phases_of(table) == (Phase.PREFILL, Phase.DECODE)
    assert await here.ask(SLOW, Phase.PREFILL) == [{"disaggregated_params": {}}]
    assert await here.ask({"itl_target": 0.0}, Phase.DECODE) == [*WHOLE]
    assert {name for _, name in here.pools if here.asked(name)} == {"q", "d"}


async def test_a_request_that_cannot_be_routed_is_told_by_name() -> None:
    told = await world().refused({"ttft_target": "soon"})
    assert told.status == 400
    assert "ttft_target must be a number" in str(told)


async def test_a_pool_with_nobody_in_it_is_left_out_for_a_faster_one() -> None:
    here = world(slow=FakePool(ids=[]))
    assert await here.ask(SLOW) == [*WHOLE]
    assert here.asked("fast") == 1
    here.pools["agg", "slow"].ids = [5]
    await here.ask(SLOW)
    assert here.asked("slow") == 1


@pytest.mark.parametrize("failure", [GONE, NOBODY])
async def test_a_pool_that_can_have_done_nothing_is_passed_over_without_a_retry(failure: str) -> None:
    here = world(slow=FakePool([[failure]]))
    for _ in range(3):
        assert await here.ask(SLOW) == [*WHOLE]
    assert here.asked("slow") == 1, "and then left alone"
    assert here.router.counts.retries == 0


async def test_a_pool_that_fails_is_tried_elsewhere_before_any_output_where_retries_are_on() -> None:
    here = world(retry=True, slow=FakePool([[LIMP]]))
    assert await here.ask(SLOW) == [*WHOLE]
    assert (here.asked("slow"), here.asked("fast"), here.router.counts.retries) == (1, 1, 1)
    off = world(slow=FakePool([[LIMP]]))
    assert (await off.refused(SLOW)).status == 502
    assert off.asked("fast") == 0


async def test_a_pool_of_two_routers_is_tried_at_the_other_one_first() -> None:
    here = world(slow=FakePool([[LIMP], WHOLE], ids=[1, 2]))
    assert await here.ask(SLOW) == [*WHOLE]
    assert {number for number, _ in here.pools["agg", "slow"].asked} == {1, 2}
    assert here.asked("fast") == 0


async def test_nothing_is_tried_towards_slower_pools() -> None:
    here = world(retry=True, fast=FakePool([[LIMP]]))
    await here.refused(FAST)
    assert here.asked("slow") == 0


async def test_after_the_first_output_a_failure_is_an_error_and_never_tried_again() -> None:
    here = world(retry=True, slow=FakePool([[*WHOLE[:1], LIMP]]))
    got, told = await _outputs(here)
    assert "cut off" in told
    assert got == [*WHOLE[:1]]
    assert here.asked("fast") == 0


async def test_an_answer_that_just_stops_is_an_error_and_not_an_end() -> None:
    here = world(fast=FakePool([WHOLE[:2]]))
    told = await here.refused(FAST)
    assert "before it was complete" in str(told)


async def test_no_answer_at_all_is_an_error() -> None:
    assert (await world(fast=FakePool([[]])).refused(FAST)).status == 502


async def test_the_fault_of_a_request_is_told_and_never_tried_elsewhere() -> None:
    here = world(retry=True, slow=FakePool([[WRONG]]))
    told = await here.refused(SLOW)
    assert (told.status, str(told)) == (400, "n is 0")
    assert here.asked("fast") == 0
    for _ in range(9):
        await here.refused(SLOW)
    assert here.asked("slow") == 10, "nor is the pool left alone for it"


async def test_a_pool_that_does_not_answer_in_time_is_tried_elsewhere_and_one_that_stops_is_an_error() -> None:
    here = world(retry=True, slow=FakePool([[1.0, *WHOLE], [*WHOLE[:1], 1.0, *WHOLE]]))
    assert await here.ask(SLOW) == [*WHOLE]
    assert here.asked("fast") == 1
    assert (await here.refused(SLOW)).status == 504


async def test_retries_stay_within_their_share() -> None:
    here = world(retry=True, bounds=attrs.evolve(QUICK, failures=1_000), slow=FakePool([[LIMP]]))
    outcomes = [await _outcome(here) for _ in range(100)]
    assert outcomes.count("ok") <= QUICK.retry_burst + 100 * QUICK.retry_share
    assert here.router.counts.retries_denied == outcomes.count("refused") > 0


async def _outcome(here: World) -> str:
    try:
        await here.ask(SLOW)
    except ToldError:
        return "refused"
    return "ok"


async def test_a_pool_that_keeps_failing_is_left_alone() -> None:
    here = world(slow=FakePool([[LIMP]]))
    for _ in range(QUICK.failures):
        await here.refused(SLOW)
    assert await here.ask(SLOW) == [*WHOLE]
    assert (here.asked("slow"), here.asked("fast")) == (QUICK.failures, 1)


async def test_with_no_replica_anywhere_a_request_waits_for_the_first() -> None:
    here = world(bounds=attrs.evolve(QUICK, wait_for_replica_s=60.0), fast=FakePool(ids=[]), slow=FakePool(ids=[]))
    waiting = asyncio.create_task(here.ask(SLOW))
    await _until(lambda: here.router.counts.waiting == 1)
    here.pools["agg", "slow"].ids = [7]
    assert await waiting == [*WHOLE]
    assert here.router.counts.waiting == 0


async def test_who_waits_in_vain_is_told_so_and_counts_as_demand_of_its_pool() -> None:
    here = world(fast=FakePool(ids=[]), slow=FakePool(ids=[]))
    told = await here.refused(SLOW)
    assert (told.status, str(told)) == (503, "no pool has a replica yet")
    lines = [line for line in here.router.metrics().splitlines() if line.startswith(STARTED)]
    assert [line.rpartition(" ")[2] for line in lines if 'namespace="slow"' in line] == ["1"]
    assert [line.rpartition(" ")[2] for line in lines if 'namespace="fast"' in line] == ["0"]


async def test_only_so_many_wait() -> None:
    here = world(bounds=attrs.evolve(QUICK, wait_for_replica_s=60.0, waiting=1), fast=FakePool(ids=[]))
    client = Client()
    waiting = asyncio.create_task(here.ask(FAST, client=client))
    await _until(lambda: here.router.counts.waiting == 1)
    assert "too many" in str(await here.refused(FAST))
    client.left = True
    assert await waiting == []


async def test_a_client_that_has_left_is_not_served_elsewhere() -> None:
    client = Client()
    here = world(retry=True, slow=FakePool([[0.01, LIMP]]))
    asking = asyncio.create_task(here.ask(SLOW, client=client))
    client.left = True
    assert await asking == []
    assert here.asked("fast") == 0


async def test_pools_that_the_planner_calls_cold_are_left_out_though_their_router_is_there() -> None:
    here = world()
    here.router.planned({("agg", "slow"): "cold"})
    assert await here.ask(SLOW) == [*WHOLE]
    assert here.asked("fast") == 1
    here.router.planned({})
    await here.ask(SLOW)
    assert here.asked("slow") == 1


async def test_a_new_table_serves_from_the_next_request_on() -> None:
    here = world()
    table = routing_config(dumps(aggregated("other"))).table
    other = FakePool()
    here.router.serve(table, {**here.pools, ("agg", "other"): other})
    assert await here.ask(SLOW) == [*WHOLE]
    assert len(other.asked) == 1


def test_the_model_is_not_listed_before_the_planner_was_heard_or_somebody_is_there() -> None:
    table = routing_config(dumps(aggregated("only"))).table
    pool = FakePool(ids=[])
    router = Router(table, {("agg", "only"): pool}, refuse=ToldError, asks_planner=True)
    assert not router.advertises()
    router.planned({("agg", "only"): "denied"})
    assert not router.advertises()
    router.planned({("agg", "only"): "cold"})
    assert router.advertises()
    router.planned({("agg", "only"): "denied"})
    assert router.advertises(), "what is listed stays so"


async def test_everything_is_measured_by_pool() -> None:
    here = world(retry=True, slow=FakePool([[LIMP], [WRONG], [*WHOLE[:1], LIMP], WHOLE]))
    await here.ask(SLOW)
    await here.refused(SLOW)
    await here.refused(SLOW)
    await here.ask(SLOW)
    said = here.router.metrics()
    pool = 'dynamo_namespace="slow",dynamo_component="backend",router_id="0"'
    for outcome in ("ok", "refused", "failed", "cut"):
        assert f'gp_router_outcomes_total{{{pool},outcome="{outcome}"}} 1' in said
    assert f"gp_router_attempts_total{{{pool}}} 4" in said
    assert f"gp_router_in_flight{{{pool}}} 0" in said
    assert 'gp_router_refused_total{status="400"} 1' in said
    assert here.router.under_way == 0


ITEMS = st.lists(st.sampled_from([*WHOLE, LIMP, GONE, NOBODY, WRONG]), max_size=4)


@given(fast=st.lists(ITEMS, min_size=1, max_size=3), slow=st.lists(ITEMS, min_size=1, max_size=3), retry=st.booleans())
def test_whatever_pools_do_a_client_gets_a_whole_answer_of_one_pool_or_an_error(
    *, fast: list[Sequence[object]], slow: list[Sequence[object]], retry: bool
) -> None:
    here = world(retry=retry, fast=FakePool([*fast]), slow=FakePool([*slow]))
    got, told = asyncio.run(_outputs(here))
    assert told or any(isinstance(item, dict) and "finish_reason" in item for item in got)
    wholes = [[item for item in answer if not isinstance(item, str)] for answer in (*fast, *slow)]
    assert not got or any(got == whole[: len(got)] for whole in wholes), "never the outputs of two pools"
    assert here.router.under_way == 0


async def _outputs(here: World) -> tuple[list[object], str]:
    """Return what one request got, and what its client was told at the end."""
    got: list[object] = []
    answer = here.router.answer(Phase.AGG, {"token_ids": [1], "router": SLOW}, Client())
    while True:
        try:
            got.append(await anext(answer))
        except StopAsyncIteration:
            return got, ""
        except ToldError as told:
            return got, str(told)


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 (what is looked at tells nobody)
            await asyncio.sleep(0.001)
