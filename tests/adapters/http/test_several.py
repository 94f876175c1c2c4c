"""Several planners over one ledger, requests that are sent again, and freezes, as callers see them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import attrs
import httpx
import pytest

from gpadapters import daemon
from gpadapters.daemon import Planner
from gpadapters.http.client import Client
from gpadapters.http.codes import CODES
from gpadapters.http.server import Listen, Waits, serve
from gpcore.budgets import Budget
from gpcore.conditions import Condition
from gpcore.control import Rules
from gpcore.events import LeaseChanged
from gpcore.holding import Limits
from gpcore.pools import ParticipantId, Role
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.testing.fakes import Fault, MemoryCluster
from gpcore.testing.stores import MemoryLedger
from tests.adapters.http.test_server import targets
from tests.adapters.http.world import FLEET, deployment, document, planner_of, until

A = ParticipantId("ns", "a")


@attrs.frozen
class Two:
    """A planner that leads, one that follows it, and the ledger and the cluster that both share."""

    cluster: MemoryCluster
    ledger: MemoryLedger
    leader: Planner
    follower: Planner
    leading: httpx.AsyncClient
    following: httpx.AsyncClient
    url: str


@contextlib.asynccontextmanager
async def two(*, waits: Waits | None = None, rules: Rules | None = None) -> AsyncIterator[Two]:
    cluster = MemoryCluster(deployment(name, pools) for name, pools in FLEET.items())
    ledger = MemoryLedger()
    bounds = rules or Rules(budget=Budget(4, 21))
    world = daemon.World(cluster, cluster, ledger)
    leader, follower = (Planner(bounds, world, elected=True) for _ in range(2))
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for planner in (leader, follower):
            url = await stack.enter_async_context(serve(planner, Listen(port=0), waits=waits or Waits()))
            clients.append(await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False)))
            await stack.enter_async_context(planner.running(grace_s=0.1))
        first, second = clients
        leader.dispatch(LeaseChanged(leading=True))
        follower.dispatch(LeaseChanged(leading=False, leader=str(first.base_url)))
        await until(lambda: leader.state.ready and follower.state.ready)
        await settled(leader)
        yield Two(cluster, ledger, leader, follower, first, second, str(second.base_url))


async def settled(planner: Planner) -> None:
    """Return when nothing is under way, and all that is known is stored."""
    await until(lambda: planner.state.book is not None and not planner.state.operations)


@pytest.fixture
async def pair() -> AsyncIterator[Two]:
    async with two() as made:
        yield made


async def test_a_follower_refuses_with_the_leaders_address_and_answers_reads_and_dry_runs(pair: Two) -> None:
    refused = await pair.following.post("/v1/scale", json=document())
    assert (refused.status_code, refused.headers["Retry-After"], refused.json()["status"]) == (503, "1", "rejected")
    assert refused.json()["reason"] == {"kind": "not_leading", "leader": str(pair.leading.base_url)}
    dry = await pair.following.post("/v1/decide", json=document())
    assert (dry.status_code, dry.json()["status"]) == (200, "approved")
    assert (await pair.following.get("/readyz")).status_code == 200
    assert (await pair.following.get("/v1/pools")).json() == (await pair.leading.get("/v1/pools")).json()
    budget = (await pair.following.get("/v1/budget")).json()
    assert (budget["leader"], budget["charged"]) == (str(pair.leading.base_url), 17)
    assert (await pair.leading.get("/v1/budget")).json()["leader"] == "this planner"


async def test_the_client_goes_to_the_leader_that_is_named(pair: Two) -> None:
    def ask() -> str:
        with Client(pair.url) as client:
            return client.scale(ScaleRequest(Claimed("ns-a"), A, (Target(Role.PREFILL, 6),))).status

    assert await asyncio.to_thread(ask) == "success"


@pytest.mark.parametrize("leader", ["http://there", "http://there/", "http://planner"])
def test_a_leader_that_names_another_one_is_asked_and_nobody_else(leader: str) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(503, json={"reason": {"kind": "not_leading", "leader": leader}})

    with Client("http://planner", transport=httpx.MockTransport(answer)) as client:
        assert client.budget().reason == "not_leading"
    assert asked == ["http://planner/v1/budget", f"{leader.rstrip('/')}/v1/budget"]


@pytest.mark.parametrize("leader", ["", "ftp://there", "there:80", None, 3])
def test_what_is_no_address_is_not_followed(leader: object) -> None:
    said = {"reason": {"kind": "not_leading", "leader": leader}}
    transport = httpx.MockTransport(lambda _: httpx.Response(503, json=said))
    with Client("http://planner", transport=transport) as client:
        assert client.budget().code == 503


async def test_whoever_takes_over_knows_what_was_asked_and_answers_it_again(pair: Two) -> None:
    first = (await pair.leading.post("/v1/scale", json=document(request_id="r-1"))).json()
    await pair.leading.post("/v1/scale", json=document(request_id="r-2", target_replicas=targets(prefill=99)))
    pair.leader.dispatch(LeaseChanged(leading=False, leader=pair.url))
    pair.follower.dispatch(LeaseChanged(leading=True))
    await until(lambda: pair.follower.state.leading and pair.follower.state.ready)
    repeated = await pair.following.post("/v1/scale", json=document(request_id="r-1"))
    answer = repeated.json()
    assert (repeated.status_code, answer["status"], answer["message"]) == (200, "success", "Scaled a successfully")
    assert (answer["operation_id"], answer["current_replicas"]) == (first["operation_id"], {"prefill": 6, "decode": 2})
    found = (await pair.following.get(f"/v1/operations/{first['operation_id']}")).json()
    assert (found["status"], found["participant"], found["caller"]) == ("success", "ns/a", "ns-a")
    assert "ns/a/prefill 4 to 6" in found["written"]
    assert [one["id"] for one in (await pair.following.get("/v1/operations")).json()["operations"]] == [found["id"]]


@pytest.mark.parametrize("asked", [{}, {"prefill": 99}])
async def test_a_request_that_is_sent_again_has_one_effect_and_the_same_answer(
    asked: dict[str, int], pair: Two
) -> None:
    body = document(request_id="r-1", target_replicas=targets(**(asked or {"prefill": 6})))
    first = await pair.leading.post("/v1/scale", json=body)
    second = await pair.leading.post("/v1/scale", json=body)
    for key in ("status", "message", "current_replicas", "operation_id"):
        assert second.json()[key] == first.json()[key]
    kinds = [(one.json()["reason"] or {}).get("kind") for one in (first, second)]
    assert (second.status_code, kinds[0]) == (first.status_code, kinds[1])


async def test_a_failure_is_answered_again_with_the_same_code(pair: Two) -> None:
    pair.cluster.fail_next(Fault.REFUSED)
    first = await pair.leading.post("/v1/scale", json=document(request_id="r-1"))
    second = await pair.leading.post("/v1/scale", json=document(request_id="r-1"))
    assert [(one.status_code, one.json()["status"]) for one in (first, second)] == [(502, "error")] * 2


async def test_the_header_names_a_request_as_its_body_does(pair: Two) -> None:
    for name in ("r-1", '"r-1"'):
        answer = await pair.leading.post("/v1/scale", json=document(), headers={"Idempotency-Key": name})
        assert (answer.status_code, answer.json()["status"]) == (200, "success")
    both = document(request_id="r-1")
    assert (await pair.leading.post("/v1/scale", json=both, headers={"Idempotency-Key": "r-1"})).status_code == 200
    assert len(pair.leader.operations()) == 1
    other = document(target_replicas=targets(prefill=5))
    refused = await pair.leading.post("/v1/scale", json=other, headers={"Idempotency-Key": "r-1"})
    assert (refused.status_code, refused.json()["reason"]["kind"]) == (422, "another_body")


@pytest.mark.parametrize("names", [["r-2"], ["r-1", "r-2"], ["a b"], [""]])
async def test_a_header_that_contradicts_the_body_or_names_nothing_is_refused(names: list[str], pair: Two) -> None:
    headers = [("Idempotency-Key", name) for name in names]
    answer = await pair.leading.post("/v1/scale", json=document(request_id="r-1"), headers=headers)
    assert (answer.status_code, answer.json()["reason"]["kind"]) == (422, "invalid")
    assert "Idempotency-Key" in answer.json()["message"]


async def test_a_name_that_none_can_be_is_refused(pair: Two) -> None:
    answer = await pair.leading.post("/v1/scale", json=document(), headers={"Idempotency-Key": "a b"})
    assert (answer.status_code, answer.json()["reason"]["kind"]) == (422, "invalid")
    assert "Idempotency-Key: request_id must be 1 to 64" in answer.json()["message"]


async def test_a_request_that_comes_after_a_later_one_has_no_effect(pair: Two) -> None:
    assert (await pair.leading.post("/v1/scale", json=document(sequence=5))).status_code == 200
    late = await pair.leading.post("/v1/scale", json=document(sequence=5, target_replicas=targets(prefill=5)))
    assert (late.status_code, late.json()["reason"]["kind"]) == (409, "old_sequence")


FREEZE = {"direction": "up", "for_seconds": 600, "reason": "maintenance", "by": "ann"}


async def test_a_freeze_holds_changes_is_shown_by_everybody_and_can_be_ended(pair: Two) -> None:
    freeze = (await pair.leading.post("/v1/freezes", json=FREEZE)).json()
    assert (freeze["direction"], freeze["by"], freeze["pools"]) == ("up", "ann", [])
    held = await pair.leading.post("/v1/scale", json=document())
    assert (held.status_code, held.json()["status"], held.json()["reason"]["kind"]) == (200, "rejected", "frozen")
    down = await pair.leading.post("/v1/scale", json=document(target_replicas=targets(prefill=3)))
    assert down.json()["status"] == "success"
    assert (await pair.leading.get("/v1/freezes")).json() == {"freezes": [freeze]}
    await until(lambda: len(pair.follower.state.ledger.freezes) == 1)
    assert (await pair.following.get("/v1/freezes")).json() == {"freezes": [freeze]}
    assert (await pair.leading.delete(f"/v1/freezes/{freeze['id']}")).json() == freeze
    assert (await pair.leading.get("/v1/freezes")).json() == {"freezes": []}
    assert (await pair.leading.post("/v1/scale", json=document())).json()["status"] == "success"
    gone = await pair.leading.delete(f"/v1/freezes/{freeze['id']}")
    assert (gone.status_code, gone.json()["reason"]["kind"]) == (404, "not_found")


async def test_a_freeze_of_some_pools_leaves_the_others_alone(pair: Two) -> None:
    await pair.leading.post("/v1/freezes", json=FREEZE | {"direction": "all", "pools": ["ns/a/decode"]})
    assert (await pair.leading.post("/v1/scale", json=document())).json()["status"] == "success"
    held = await pair.leading.post("/v1/scale", json=document(target_replicas=targets(decode=1)))
    assert held.json()["reason"]["kind"] == "frozen"


async def test_a_follower_takes_no_freeze_and_ends_none(pair: Two) -> None:
    freeze = (await pair.leading.post("/v1/freezes", json=FREEZE)).json()
    await until(lambda: len(pair.follower.state.ledger.freezes) == 1)
    asked = await pair.following.post("/v1/freezes", json=FREEZE)
    ended = await pair.following.delete(f"/v1/freezes/{freeze['id']}")
    for refused in (asked, ended):
        assert (refused.status_code, refused.json()["reason"]["kind"]) == (503, "not_leading")
        assert refused.json()["reason"]["leader"] == str(pair.leading.base_url)


NO_FREEZES: dict[str, tuple[object, str]] = {
    "another direction": (FREEZE | {"direction": "left"}, "$.direction: must be one of 'up', 'down', 'all'"),
    "no time": (FREEZE | {"for_seconds": 0}, "$.for_seconds: must be 1 to 2.592e+06 seconds"),
    "for ever": (FREEZE | {"for_seconds": 1e9}, "$.for_seconds: must be 1 to 2.592e+06 seconds"),
    "no reason": (FREEZE | {"reason": " "}, "reason must be 1 to 256 printable characters"),
    "nobody": (FREEZE | {"by": ""}, "$.by: must be 1 to 64 printable characters"),
    "no pool": (FREEZE | {"pools": ["a"]}, "$.pools[0]: a pool is written namespace/name/role"),
    "none of them": (FREEZE | {"pools": []}, "$.pools: must have 1 to 256 items: 0"),
    "a pool that is not there": (FREEZE | {"pools": ["ns/a/worker"]}, "there is no pool ns/a/worker"),
    "something else": (FREEZE | {"colour": "red"}, "unknown field"),
}


@pytest.mark.parametrize("what", NO_FREEZES)
async def test_a_freeze_that_makes_no_sense_is_refused(what: str, pair: Two) -> None:
    body, problem = NO_FREEZES[what]
    answer = await pair.leading.post("/v1/freezes", json=body)
    assert (answer.status_code, answer.json()["reason"]["kind"]) == (422, "invalid")
    assert problem in answer.json()["message"]
    assert not pair.leader.state.ledger.freezes


async def test_a_web_page_may_neither_freeze_nor_thaw(pair: Two) -> None:
    origin = {"Origin": "http://page"}
    asked = await pair.leading.post("/v1/freezes", json=FREEZE, headers=origin)
    assert (asked.status_code, (await pair.leading.delete("/v1/freezes/f-0", headers=origin)).status_code) == (400, 400)


async def test_as_much_changes_in_a_window_as_may() -> None:
    async with two(rules=Rules(budget=Budget(4, 21), limits=Limits(gpus=2))) as pair:
        assert (await pair.leading.post("/v1/scale", json=document())).json()["status"] == "success"
        more = await pair.leading.post("/v1/scale", json=document(target_replicas=targets(prefill=7)))
        assert (more.status_code, more.json()["reason"]["kind"]) == (200, "limit_reached")


async def test_without_the_ledger_nothing_is_promised(pair: Two) -> None:
    pair.ledger.fail_next(Fault.REFUSED)
    answer = await pair.leading.post("/v1/scale", json=document())
    assert (answer.status_code, answer.json()["reason"]["kind"]) == (503, "ledger_down")
    assert answer.headers["Retry-After"] == str(CODES["ledger_down"].retry_s)


async def test_an_operation_under_way_is_shown_leg_by_leg_by_whoever_is_asked() -> None:
    async with two(waits=Waits(answer_s=0.02)) as pair:
        pair.cluster.fail_next(Fault.LOST_BEFORE)
        key = (await pair.leading.post("/v1/scale", json=document())).json()["operation_id"]
        found = (await pair.leading.get(f"/v1/operations/{key}")).json()
        assert (found["status"], found["ended_at"], found["caller"]) == ("scaling", None, "ns-a")
        (leg,) = found["legs"]
        assert (leg["stage"], leg["changes"]) == (
            "reserved",
            [{"participant": "ns/a", "role": "prefill", "before": 4, "after": 6}],
        )
        assert leg["fence"]
        await until(lambda: key in pair.follower.state.operations)
        assert (await pair.following.get(f"/v1/operations/{key}")).json()["legs"][0]["fence"] == leg["fence"]


async def test_what_holds_the_planner_back_has_an_address_of_its_own() -> None:
    planner, told = planner_of(MemoryCluster()), Condition("view_stale", "not followed")
    async with serve(planner, Listen(port=0), conditions=lambda: [told]) as url, httpx.AsyncClient() as client:
        answer = await client.get(f"{url}/v1/conditions")
    assert (answer.status_code, answer.json()) == (
        200,
        {"conditions": [{"kind": "view_stale", "detail": "not followed"}]},
    )
