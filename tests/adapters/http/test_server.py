import asyncio
import logging

import httpx
import pytest

from gpadapters import answering, daemon
from gpadapters.daemon import Planner
from gpadapters.http.client import Answer, Client, UnreachableError
from gpadapters.http.codes import CODES
from gpadapters.http.server import Listen, Waits, serve
from gpcore.conditions import Condition
from gpcore.control import Rules, State
from gpcore.errors import ConfigError
from gpcore.pools import ParticipantId, PoolKey, Role
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.testing.fakes import Fault, MemoryCluster
from gpcore.testing.stores import MemoryLedger
from tests.adapters.http.world import World, deployment, document, planner_of, until, world_of

A = ParticipantId("ns", "a")


def targets(**replicas: int) -> list[dict[str, object]]:
    return [{"sub_component_type": role, "desired_replicas": count} for role, count in replicas.items()]


def replicas(world: World, role: Role = Role.PREFILL) -> int:
    pool = world.cluster.pool(PoolKey(A, role))
    assert pool is not None
    return pool.replicas


async def test_a_request_is_answered_as_the_peer_answers_and_with_our_fields_besides(world: World) -> None:
    response = await world.scale()
    assert response.status_code == 200
    answer = response.json()
    assert answer == {
        "status": "success",
        "message": "Scaled a successfully",
        "current_replicas": {"prefill": 6, "decode": 2},
        "decision_id": answer["decision_id"],
        "reason": None,
        "plan": [[{"participant": "ns/a", "role": "prefill", "before": 4, "after": 6}]],
        "operation_id": answer["decision_id"],
    }
    assert response.headers["Cache-Control"] == "no-store"
    assert replicas(world) == 6


async def test_several_targets_are_all_or_none(world: World) -> None:
    assert (await world.scale(target_replicas=targets(prefill=5, decode=99))).json()["status"] == "rejected"
    assert (replicas(world), replicas(world, Role.DECODE)) == (4, 2)
    assert (await world.scale(target_replicas=targets(prefill=5, decode=1))).json()["status"] == "success"
    assert (replicas(world), replicas(world, Role.DECODE)) == (5, 1)


async def test_what_does_not_fit_is_rejected_with_its_reason_and_200(world: World) -> None:
    response = await world.scale(target_replicas=targets(prefill=9))
    assert response.status_code == 200
    answer = response.json()
    assert (answer["status"], answer["reason"]["kind"], answer["plan"]) == ("rejected", "above_ceiling", [])
    assert answer["reason"]["nearest"]["own"][0]["after"] == 8
    assert replicas(world) == 4


async def test_a_request_for_what_is_already_writes_nothing(world: World) -> None:
    before = world.cluster.deployments
    answer = (await world.scale(target_replicas=targets(prefill=4))).json()
    assert (answer["status"], answer["message"], answer["operation_id"]) == (
        "success",
        "unchanged: a is as asked",
        None,
    )
    assert world.cluster.deployments == before


async def test_deciding_executes_nothing_and_remembers_nothing(world: World) -> None:
    before = world.planner.state
    answer = (await world.scale("/v1/decide")).json()
    assert (answer["status"], answer["total_after"], len(answer["plan"])) == ("approved", 18, 1)
    assert (await world.scale("/v1/decide", target_replicas=targets(prefill=9))).json()["status"] == "rejected"
    assert (await world.scale("/v1/decide", caller_namespace="else")).status_code == 403
    assert world.planner.state is before


@pytest.mark.parametrize(
    ("caller", "name", "kind"),
    [("else", "a", "not_authorized"), ("ns-a", "b", "not_yours"), ("ns-gone", "gone", "unknown_deployment")],
)
async def test_who_may_not_ask_is_told_so(world: World, caller: str, name: str, kind: str) -> None:
    response = await world.scale(caller_namespace=caller, graph_deployment_name=name)
    assert response.status_code == CODES[kind].http
    assert (response.json()["status"], response.json()["reason"]["kind"]) == ("error", kind)


async def test_what_is_not_there_and_what_is_not_yours_are_told_in_the_same_words(world: World) -> None:
    gone = (await world.scale(caller_namespace="ns-gone", graph_deployment_name="gone")).json()["message"]
    foreign = (await world.scale(graph_deployment_name="gone")).json()["message"]
    assert gone == foreign == "ns/gone is not a managed deployment that you may scale"


async def test_an_operation_that_takes_long_is_answered_with_its_id_and_goes_on() -> None:
    async with world_of(waits=Waits(answer_s=0.02)) as world, world.planner.running():
        await until(lambda: world.planner.state.ready)
        world.cluster.fail_next(Fault.LOST_BEFORE)
        answer = (await world.scale()).json()
        assert answer["status"] == "scaling"
        found = await world.client.get(f"/v1/operations/{answer['operation_id']}")
        assert (found.status_code, found.json()["status"]) == (200, "scaling")
        other = await world.scale(target_replicas=targets(prefill=5))
        assert (other.status_code, other.json()["reason"]["kind"], other.headers["Retry-After"]) == (409, "busy", "1")
        await until(lambda: not world.planner.state.operations)
        ended = (await world.client.get(f"/v1/operations/{answer['operation_id']}")).json()
        assert ended["status"] == "success"
        assert (await world.client.get("/v1/operations")).json()["operations"] == [ended]


async def test_a_write_that_the_cluster_refuses_is_its_failure_and_nothing_of_it_happened(world: World) -> None:
    world.cluster.fail_next(Fault.REFUSED)
    response = await world.scale()
    assert (response.status_code, response.json()["status"]) == (502, "error")
    assert "nothing was applied" in response.json()["message"]
    assert replicas(world) == 4


async def test_blocking_waits_until_the_replicas_serve_and_holds_nobody_up() -> None:
    timers = []
    cluster = MemoryCluster(
        [deployment("a", {"prefill": (4, 1)}), deployment("b", {"prefill": (4, 1)})],
        acquire_lag_s=1,
        later=lambda _, call: timers.append(call),
    )
    planner = planner_of(cluster)
    async with planner.running(), serve(planner, Listen(port=0)) as url, httpx.AsyncClient(base_url=url) as client:
        await until(lambda: planner.state.ready)
        blocked = asyncio.create_task(client.post("/v1/scale", json=document(blocking=True)))
        await until(lambda: len(timers) == 1)
        other = await client.post("/v1/scale", json=document(graph_deployment_name="b"))
        assert other.json()["status"] == "success"
        assert not blocked.done()
        timers[0]()
        assert (await blocked).json()["status"] == "success"
        unchanged = await client.post("/v1/scale", json=document(blocking=True))
        assert unchanged.json()["status"] == "success"
        await client.post("/v1/scale", json=document(target_replicas=targets(prefill=7)))
        repeated = asyncio.create_task(
            client.post("/v1/scale", json=document(target_replicas=targets(prefill=7), blocking=True))
        )
        await until(lambda: len(planner.decisions()) == 5)
        await asyncio.sleep(0.01)
        assert not repeated.done(), "what was asked for before is waited for too"
        timers[-1]()
        assert (await repeated).json()["message"] == "unchanged: a is as asked"


async def test_only_so_many_block_and_they_keep_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "MAX_BLOCKING", 2)
    cluster = MemoryCluster(
        [deployment("a", {"prefill": (4, 1)}), deployment("b", {"prefill": (4, 1)})], acquire_lag_s=float("inf")
    )
    planner = planner_of(cluster)
    async with serve(planner, Listen(port=0)) as url, httpx.AsyncClient(base_url=url) as client:
        async with planner.running():
            await until(lambda: planner.state.ready)
            blocked = [asyncio.create_task(client.post("/v1/scale", json=document(blocking=True))) for _ in range(2)]
            await until(lambda: len(planner.decisions()) == 2)
            more = (await client.post("/v1/scale", json=document(graph_deployment_name="b", blocking=True))).json()
            assert (more["status"], more["operation_id"]) == ("scaling", more["decision_id"])
            other = await client.post("/v1/scale", json=document(graph_deployment_name="b"))
            assert other.json()["status"] == "success"
            assert not any(one.done() for one in blocked)
        assert [(await one).json()["status"] for one in blocked] == ["scaling"] * 2


async def test_blocking_ends_when_another_change_overtakes_it_or_the_planner_stops() -> None:
    cluster = MemoryCluster([deployment("a", {"prefill": (4, 1)})], acquire_lag_s=float("inf"))
    planner = planner_of(cluster)
    async with serve(planner, Listen(port=0)) as url, httpx.AsyncClient(base_url=url) as client:
        async with planner.running():
            await until(lambda: planner.state.ready)
            overtaken = asyncio.create_task(client.post("/v1/scale", json=document(blocking=True)))
            await until(lambda: len(planner.operations()) == 1 and not planner.state.operations)
            await client.post("/v1/scale", json=document(target_replicas=targets(prefill=7)))
            answer = (await overtaken).json()
            assert (answer["status"], answer["message"]) == (
                "success",
                "Scaled a successfully; another change overtook it before the replicas served",
            )
            left = asyncio.create_task(
                client.post("/v1/scale", json=document(target_replicas=targets(prefill=8), blocking=True))
            )
            await until(lambda: len(planner.operations()) == 3 and not planner.state.operations)
            await asyncio.sleep(0.01)
        assert (await left).json()["status"] == "scaling"
        late = await client.post("/v1/scale", json=document())
        assert (late.status_code, late.json()["reason"]["kind"]) == (503, "stopping")


async def test_a_client_that_leaves_does_not_end_the_operation_and_leaves_nothing_behind(world: World) -> None:
    world.cluster.fail_next(Fault.LOST_BEFORE)
    with pytest.raises(httpx.ReadTimeout):
        await world.client.post("/v1/scale", json=document(blocking=True), timeout=0.05)
    await until(lambda: replicas(world) == 6 and not world.planner.state.operations)
    assert [one.status for one in world.planner.operations()] == ["success"]


async def test_whoever_was_told_scaling_or_has_left_takes_no_place_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "MAX_PENDING", 3)
    async with world_of(waits=Waits(answer_s=0.01)) as world, world.planner.running(grace_s=0.01):
        await until(lambda: world.planner.state.ready)
        world.cluster.fail_next(Fault.LOST_BEFORE)
        assert [(await world.scale()).json()["status"] for _ in range(5)] == ["scaling"] * 5
        for _ in range(4):
            with pytest.raises(httpx.ReadTimeout):
                await world.client.post("/v1/scale", json=document(blocking=True), timeout=0.02)
        await asyncio.sleep(0.02)
        other = document(caller_namespace="ns-b", graph_deployment_name="b", target_replicas=targets(prefill=7))
        assert (await world.client.post("/v1/scale", json=other)).status_code == 200


async def test_nothing_is_answered_before_the_cluster_was_read() -> None:
    cluster = MemoryCluster()
    planner = planner_of(cluster)
    async with serve(planner, Listen(port=0)) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        for answer in (await client.post("/v1/scale", json=document()), await client.get("/v1/pools")):
            assert (answer.status_code, answer.json()["reason"]["kind"]) == (503, "not_ready")
            assert answer.headers["Retry-After"] == "1"
        unread = await client.get("/readyz")
        assert (unread.status_code, unread.json()["message"]) == (503, "The cluster was not read yet.")
        assert (await client.get("/v1/budget")).status_code == 503
        async with planner.running():
            await until(lambda: planner.state.ready)
            assert (await client.get("/readyz")).json() == {"status": "ready", "conditions": []}
            cluster.go_stale()
            await until(lambda: planner.state.stale)
            stale = await client.get("/readyz")
            assert stale.status_code == 503
            assert stale.json()["message"] == "the cluster is not being followed at the moment"


async def test_a_planner_that_is_ready_says_what_it_runs_without() -> None:
    cluster, missing = MemoryCluster(), Condition("watch_forbidden", "not allowed to watch")
    planner = planner_of(cluster)
    served = serve(planner, Listen(port=0), conditions=lambda: [missing])
    async with served as url, httpx.AsyncClient(base_url=url) as client, planner.running():
        await until(lambda: planner.state.ready)
        told = {"kind": "watch_forbidden", "detail": "not allowed to watch"}
        assert (await client.get("/readyz")).json() == {"status": "ready", "conditions": [told]}


class Polled(MemoryCluster):
    """A cluster in which somebody else has changed a deployment when it is looked at anew."""

    async def refresh(self) -> None:
        self.put(deployment("a", {"prefill": (6, 1)}))
        await super().refresh()


@pytest.mark.parametrize("path", ["/v1/scale", "/v1/decide"])
async def test_every_decision_is_made_on_a_fresh_view(path: str) -> None:
    cluster = Polled([deployment("a", {"prefill": (4, 1)})])
    planner = planner_of(cluster)
    async with (
        serve(planner, Listen(port=0)) as url,
        httpx.AsyncClient(base_url=url) as client,
        planner.running(),
    ):
        await until(lambda: planner.state.ready)
        answer = (await client.post(path, json=document())).json()
        assert answer["plan"] == [], "it is at 6 already"


async def test_a_probe_is_no_request_that_is_refused() -> None:
    async with world_of() as world:
        assert (await world.client.get("/readyz")).status_code == 503
        assert world.refused == []


async def test_what_would_grow_on_a_stale_view_is_refused(world: World) -> None:
    world.cluster.go_stale()
    await until(lambda: world.planner.state.stale)
    response = await world.scale()
    assert (response.status_code, response.json()["status"]) == (409, "rejected")
    assert response.json()["reason"] == {"kind": "view_stale"}


async def test_pools_budget_and_decisions_are_shown(world: World) -> None:
    pools = (await world.client.get("/v1/pools")).json()
    assert [(pool["participant"], pool["role"]) for pool in pools["pools"]] == [
        ("ns/a", "decode"),
        ("ns/a", "prefill"),
        ("ns/b", "prefill"),
    ]
    budget = (await world.client.get("/v1/budget")).json()
    assert (budget["floor"], budget["ceiling"], budget["charged"], budget["headroom"]) == (4, 20, 16, 4)
    key = (await world.scale()).json()["decision_id"]
    decision = (await world.client.get(f"/v1/decisions/{key}")).json()
    assert (decision["caller"], decision["participant"], decision["status"]) == ("ns-a", "ns/a", "approved")
    assert (await world.client.get("/v1/decisions?limit=1")).json() == {"decisions": [decision]}


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "٣", "1" * 5000])
async def test_a_limit_is_a_small_number(world: World, limit: str) -> None:
    response = await world.client.get("/v1/decisions", params={"limit": limit})
    assert (response.status_code, response.json()["reason"]["kind"]) == (422, "invalid")


@pytest.mark.parametrize("path", ["/", "/v1/decisions/d-0", "/v1/operations/d-0", "/v1/scale/", "/v1/%2e%2e/pools"])
async def test_what_is_nowhere_is_not_found(world: World, path: str) -> None:
    response = await world.client.get(path)
    assert (response.status_code, response.json()["reason"]["kind"]) == (404, "not_found")


async def test_another_method_is_told_which_there_are(world: World) -> None:
    response = await world.client.get("/v1/scale")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert response.json()["reason"]["kind"] == "method_not_allowed"


async def test_a_connection_is_not_upgraded(world: World) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}
    response = await world.client.get("/v1/pools", headers=headers)
    assert (response.status_code, response.json()["reason"]["kind"]) == (400, "bad_request")


async def test_metrics_and_the_description_are_served(world: World) -> None:
    metrics = await world.client.get("/metrics")
    assert (metrics.text, metrics.headers["Content-Type"]) == (
        "# nothing\n",
        "text/plain; version=0.0.4; charset=utf-8",
    )
    description = (await world.client.get("/openapi.json")).json()
    assert (description["openapi"], description["info"]["version"]) == ("3.1.0", "1.2.3")


async def test_a_fault_of_ours_is_logged_and_shows_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Planner):
        @property
        def state(self) -> State:
            raise ZeroDivisionError

    broken = Broken(Rules(), daemon.World(world.cluster, world.cluster, MemoryLedger()))
    async with serve(broken, Listen(port=0)) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.get("/v1/pools")
    assert (response.status_code, response.json()["reason"]) == (500, {"kind": "internal"})
    assert "ZeroDivision" not in response.text
    assert "a request failed" in caplog.text


async def test_a_policy_that_raises_is_a_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    caplog.set_level(logging.CRITICAL)
    cluster = MemoryCluster([deployment("a", {"prefill": (4, 1)})])
    planner = planner_of(cluster, Rules(policy=broken))  # type: ignore[arg-type]
    async with planner.running(), serve(planner, Listen(port=0)) as url, httpx.AsyncClient(base_url=url) as client:
        await until(lambda: planner.state.ready)
        assert (await client.post("/v1/scale", json=document())).json()["reason"] == {"kind": "internal"}
        assert (await client.post("/v1/decide", json=document())).json()["reason"] == {"kind": "internal"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_may_be_listened_to(host: str) -> None:
    assert Listen(host).local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.test"])  # noqa: S104 - the point of it
def test_any_other_address_needs_the_word_for_it(host: str) -> None:
    with pytest.raises(ConfigError, match="--insecure-no-auth"):
        Listen(host)
    assert not Listen(host, insecure_no_auth=True).local


async def test_an_open_address_is_logged_loudly(caplog: pytest.LogCaptureFixture) -> None:
    cluster = MemoryCluster()
    listen = Listen("0.0.0.0", 0, insecure_no_auth=True)  # noqa: S104 - the point of it
    async with serve(planner_of(cluster), listen) as url:
        assert url.startswith("http://0.0.0.0:")
    assert "INSECURE" in caplog.text


def test_a_port_is_a_port() -> None:
    with pytest.raises(ConfigError, match="port must be between 0 and 65535: 65536"):
        Listen(port=65_536)


async def test_the_client_asks_and_reads(world: World) -> None:
    def ask() -> list[Answer]:
        request = ScaleRequest(Claimed("ns-a"), A, (Target(Role.PREFILL, 6),))
        refused = ScaleRequest(Claimed("ns-a"), A, (Target(Role.PREFILL, 99),))
        with Client(world.url) as client:
            scaled = client.scale(request)
            operation = client.operation(str(scaled.document["operation_id"]))
            answers = [client.decide(refused), client.pools(), client.budget(), client.decisions()]
            return [scaled, operation, *answers]

    scaled, operation, decided, pools, *_ = await asyncio.to_thread(ask)
    assert (scaled.code, scaled.status, scaled.message, scaled.reason) == (
        200,
        "success",
        "Scaled a successfully",
        None,
    )
    assert operation.status == "success"
    assert (decided.status, decided.reason) == ("rejected", "above_ceiling")
    assert len(pools.document["pools"]) == 3


@pytest.mark.parametrize("content", [b"hello", b"[]"])
def test_what_does_not_speak_this_api_is_no_planner(content: bytes) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=content))
    with (
        Client("http://planner", transport=transport) as client,
        pytest.raises(UnreachableError, match="is not a planner: HTTP 200"),
    ):
        client.pools()


def test_a_planner_that_is_not_there_is_an_error() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    said = "http://planner gave no answer: ConnectError: refused"
    with (
        Client("http://planner", transport=httpx.MockTransport(gone)) as client,
        pytest.raises(UnreachableError, match=said),
    ):
        client.budget()


async def test_where_only_probes_are_served_everybody_may_connect_and_nobody_can_ask(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = MemoryCluster([deployment("a", {"prefill": (4, 1)})])
    planner = planner_of(cluster)
    everywhere = Listen("0.0.0.0", 0, probes_only=True)  # noqa: S104 - that this is allowed is what is tested
    async with planner.running(), serve(planner, everywhere) as url, httpx.AsyncClient(trust_env=False) as client:
        await until(lambda: planner.state.ready)
        here = url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        codes = {path: (await client.get(f"{here}{path}")).status_code for path in ("/healthz", "/readyz", "/metrics")}
        assert codes == dict.fromkeys(codes, 200)
        assert (await client.post(f"{here}/v1/scale", json=document())).status_code == 404
        assert (await client.get(f"{here}/v1/pools")).status_code == 404
    assert "INSECURE" not in caplog.text
