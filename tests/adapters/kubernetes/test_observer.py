"""What the observer makes of a server that says strange things: never a view that is smaller than the truth."""

import asyncio
import json
from collections import deque
from contextlib import aclosing
from pathlib import Path

import attrs
import pytest

from gpadapters.kubernetes.catalogue import ADAPTERS, GRAPHS
from gpadapters.kubernetes.cluster import Cluster, Pace
from gpadapters.kubernetes.rounds import Rounds
from gpcore.events import Gone, Listed, Seen, Stale
from gpcore.pools import Role
from gpcore.ports import Observation
from tests.adapters.kubernetes.scripted import QUICK, Said, Scripted, connected, event, graph, page, refused


async def observed(cluster: Cluster, count: int) -> list[Observation]:
    """Give the first *count* observations."""
    found: list[Observation] = []
    async with aclosing(cluster.observer.observe()) as observing:
        async for observation in observing:
            found.append(observation)
            if len(found) == count:
                break
    return found


def told(observation: Observation) -> object:
    """Give what *observation* says in a word: the kind, and names with replicas."""
    match observation:
        case Listed(deployments):
            return ("Listed", {one.id.name: _replicas(one.pool(Role.PREFILL)) for one in deployments})
        case Seen(deployment):
            return ("Seen", deployment.id.name, _replicas(deployment.pool(Role.PREFILL)))
        case Gone(participant):
            return ("Gone", participant.name)
        case Stale():
            return "Stale"


def _replicas(pool: object) -> object:
    return getattr(pool, "replicas", None)


async def test_changes_are_shown_and_what_did_not_change_is_not(tmp_path: Path) -> None:
    lines = [
        event("ADDED", graph("b", version="11", uid="ub")),
        event("MODIFIED", graph(version="12")),
        b"\n",
        event("BOOKMARK", {"metadata": {"resourceVersion": "13"}}),
        event("MODIFIED", graph(version="14", generation=2, replicas=5)),
        event("DELETED", graph("b", version="15", uid="ub")),
    ]
    script = Scripted()
    script.lists.append(page(graph()))
    script.watches.append(Said(b"".join(lines), hold=True))
    async with connected(script, tmp_path) as cluster:
        shown = [told(one) for one in await observed(cluster, 4)]
        assert shown == [("Listed", {"a": 2}), ("Seen", "b", 2), ("Seen", "a", 5), ("Gone", "b")]
        assert cluster.observer.problem is None
        assert cluster.observer.watch_age_s >= 0


async def test_a_watch_that_ends_goes_on_where_it_stood(tmp_path: Path) -> None:
    script = Scripted()
    script.lists.append(page(graph()))
    script.watches += [
        Said(event("BOOKMARK", {"metadata": {"resourceVersion": "20"}})),
        Said(event("MODIFIED", graph(version="21", generation=2, replicas=3)) + b'{"type":"MODIF'),  # half a line
        Said(event("MODIFIED", graph(version="22", generation=3, replicas=4)), hold=True),
    ]
    async with connected(script, tmp_path) as cluster:
        shown = [told(one) for one in await observed(cluster, 3)]
        assert shown == [("Listed", {"a": 2}), ("Seen", "a", 3), ("Seen", "a", 4)]
    stood = [one.query["resourceVersion"] for one in script.asked if "watch" in one.query and "adapter" not in one.path]
    assert stood == ["10", "20", "21"]


@pytest.mark.parametrize(
    "said",
    [
        Said(event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})),
        Said(event("ERROR", {"code": 500})),
        Said(b'{"type":"MODIFIED"}\n'),
        Said(b"half\n"),
        Said(event("MODIFIED", {"metadata": {}})),
        Said(event("MODIFIED", graph() | {"kind": "ConfigMap"})),
        Said(event("SURPRISE", graph())),
        refused(410, "too old resource version"),
        refused(429),
        refused(500),
        Said(b"x" * (2**24 + 2**19)),
    ],
    ids=range(11),
)
async def test_whatever_else_a_watch_says_is_answered_with_a_new_list(said: Said, tmp_path: Path) -> None:
    script = Scripted()
    script.lists += [page(graph()), page(graph(version="2", generation=2, replicas=7))]
    script.watches.append(said)
    async with connected(script, tmp_path) as cluster:
        shown = [told(one) for one in await observed(cluster, 3)]
        assert shown[0] == ("Listed", {"a": 2})
        # What changed meanwhile may be shown just before the whole is.
        assert shown[1:] in (["Stale", ("Listed", {"a": 7})], ["Stale", ("Seen", "a", 7)])


async def test_a_list_is_taken_in_whole_or_not_at_all(tmp_path: Path) -> None:
    script = Scripted()
    script.lists += [
        page(graph("a"), more="next"),
        refused(410, "the continue token is too old"),
        page(graph("a"), more="next"),
        page(graph("b", uid="ub")),
    ]
    async with connected(script, tmp_path) as cluster:
        assert [told(one) for one in await observed(cluster, 1)] == [("Listed", {"a": 2, "b": 2})]


async def test_an_item_that_is_not_understood_is_there_and_unknown(tmp_path: Path) -> None:
    strange = graph("b", uid="ub") | {"spec": {"components": 7}}
    script = Scripted()
    script.lists.append(page(graph(), strange))
    async with connected(script, tmp_path) as cluster:
        (listed,) = await observed(cluster, 1)
        assert isinstance(listed, Listed)
        assert {one.id.name: one.shape_known for one in listed.deployments} == {"a": True, "b": False}


@pytest.mark.parametrize(
    "bad", [page({"spec": {}}), page(7), b"<html>", b"{}", refused(403), refused(503), Said(b"{}", 302)], ids=range(7)
)
async def test_a_list_that_names_not_every_object_is_asked_for_again(bad: Said | bytes, tmp_path: Path) -> None:
    script = Scripted()
    script.lists += [bad, page(graph())]
    async with connected(script, tmp_path) as cluster:
        assert [told(one) for one in await observed(cluster, 1)] == [("Listed", {"a": 2})]


async def test_the_periodic_list_repairs_what_the_watch_kept_to_itself(tmp_path: Path) -> None:
    script = Scripted()
    script.lists += [page(graph()), page(graph(version="2", generation=2, replicas=9))]
    async with connected(script, tmp_path, attrs.evolve(QUICK, relist_s=0.05, grace_s=0.1)) as cluster:
        shown = [told(one) for one in await observed(cluster, 2)]
        assert shown == [("Listed", {"a": 2}), ("Seen", "a", 9)]


async def test_a_kind_that_the_server_begins_to_serve_is_uncertain_until_it_is_listed(tmp_path: Path) -> None:
    adapted = graph(scalingAdapter={})
    script = Scripted(lists=deque([page(adapted)]), kinds=[GRAPHS])
    async with connected(script, tmp_path, attrs.evolve(QUICK, absent_s=0.02)) as cluster:
        shown: list[Observation] = []
        async with aclosing(cluster.observer.observe()) as observing:
            async for observation in observing:
                shown.append(observation)
                script.kinds = [GRAPHS, ADAPTERS]
                if len(shown) == 3:
                    break
        assert [told(one) for one in shown] == [("Listed", {"a": 2}), "Stale", ("Listed", {"a": None})]
        assert isinstance(shown[2], Listed)
        assert [one.totals.charged for one in shown[2].deployments] == [4]


async def test_without_graphs_nothing_is_known_of_adapters_either(tmp_path: Path) -> None:
    """Both definitions are installed one after the other, so the absence of one says nothing before the other is."""
    script = Scripted(kinds=[], lists=deque([page(graph())]))
    async with connected(script, tmp_path, attrs.evolve(QUICK, absent_s=0.02)) as cluster:
        observing = asyncio.create_task(observed(cluster, 1))
        while cluster.observer.problem is None or len(script.asked) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert "is Dynamo installed?" in cluster.observer.problem
        assert not observing.done()
        script.kinds = [GRAPHS]
        assert [told(one) for one in await observing] == [("Listed", {"a": 2})]


async def test_a_server_without_adapters_is_heard_of(tmp_path: Path) -> None:
    script = Scripted(kinds=[GRAPHS], watches=deque([Said()] * 1000))
    async with (
        connected(script, tmp_path, attrs.evolve(QUICK, absent_s=0.02)) as cluster,
        aclosing(cluster.observer.observe()) as observing,
    ):
        await anext(observing)
        await asyncio.sleep(0.8)
        assert cluster.observer.watch_age_s < 0.5


@pytest.mark.parametrize(("held", "told_once"), [(True, 0), (False, 1)])
async def test_a_namespace_that_holds_nothing_is_told_once(
    *, held: bool, told_once: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = Scripted()
    script.lists += [page(*[graph()] * held), page(graph("b", uid="ub")), page()]
    script.watches += [Said(b"half\n")] * 2
    async with connected(script, tmp_path) as cluster:
        await observed(cluster, 5)
    lines = [one.getMessage() for one in caplog.records if "holds no deployment" in one.getMessage()]
    assert lines == ["namespace ns does not exist or holds no deployment; is it the right one?"] * told_once


def test_a_server_that_comes_back_is_waited_for_at_most_a_few_seconds() -> None:
    pace = Pace()
    assert max(pace.pause_s(tries) for tries in range(1, 100)) <= 7.5


async def test_two_cannot_observe_at_once(tmp_path: Path) -> None:
    async with connected(Scripted(), tmp_path) as cluster:
        stream = cluster.observer.observe()
        await anext(stream)
        with pytest.raises(RuntimeError, match="observed already"):
            await anext(cluster.observer.observe())
        await stream.aclose()


POLLING = attrs.evolve(QUICK, poll_s=60.0)


class TestWithoutRights:
    """What an account does that may not do all that ours may."""

    async def test_what_may_not_be_watched_is_listed_for_whoever_asks(self, tmp_path: Path) -> None:
        script = Scripted(watches=deque([refused(403)]))
        script.lists += [page(graph(replicas=count, generation=count, version=str(count))) for count in (2, 3, 4)]
        async with connected(script, tmp_path, POLLING) as cluster:
            shown: list[object] = []
            following = asyncio.create_task(self.follow(cluster, shown))
            while not cluster.observer.conditions:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert shown == [("Listed", {"a": 2})]
            await cluster.observer.refresh()
            assert shown[1:] == [("Seen", "a", 3)]
            await asyncio.gather(*(cluster.observer.refresh() for _ in range(50)))
            assert shown[2:] == [("Seen", "a", 4)]
            assert not script.lists, "many who ask at once share one list"
            lists = [one for one in script.asked if one.path.endswith(GRAPHS) and "watch" not in one.query]
            assert len(lists) == 3
            assert {one.kind for one in cluster.observer.conditions} == {"watch_forbidden"}
            following.cancel()

    async def test_whoever_asks_during_a_list_waits_for_the_next(self) -> None:
        rounds, order = Rounds(), list[str]()

        async def wait(name: str) -> None:
            await rounds.next()
            order.append(name)

        early = asyncio.create_task(wait("early"))
        await asyncio.sleep(0)
        rounds.begin()
        late = asyncio.create_task(wait("late"))
        await asyncio.sleep(0)
        rounds.end()
        await early
        assert order == ["early"]
        rounds.begin()
        rounds.end()
        await late

    async def test_without_being_asked_it_lists_every_few_seconds(self, tmp_path: Path) -> None:
        script = Scripted(watches=deque([refused(403)]))
        script.lists += [page(graph()), page(graph(version="2", generation=2, replicas=9)), page()]
        async with connected(script, tmp_path, attrs.evolve(QUICK, poll_s=0.01)) as cluster:
            shown = [told(one) for one in await observed(cluster, 3)]
            assert shown == [("Listed", {"a": 2}), ("Seen", "a", 9), ("Gone", "a")]

    async def test_who_asks_while_nothing_can_be_listed_is_let_go(self, tmp_path: Path) -> None:
        script = Scripted(watches=deque([refused(403)]), lists=deque([page(graph()), refused(503)]))
        async with connected(script, tmp_path, attrs.evolve(POLLING, backoff_s=60.0, backoff_max_s=60.0)) as cluster:
            shown: list[object] = []
            following = asyncio.create_task(self.follow(cluster, shown))
            while not cluster.observer.conditions:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            for _ in range(2):
                async with asyncio.timeout(5):
                    await cluster.observer.refresh()
            assert shown == [("Listed", {"a": 2}), "Stale"]
            following.cancel()

    async def test_who_asks_when_it_ends_is_let_go(self, tmp_path: Path) -> None:
        script = Scripted(watches=deque([refused(403)]), lists=deque([page(graph()), Said(hold=True)]))
        async with connected(script, tmp_path, POLLING) as cluster:
            following = asyncio.create_task(self.follow(cluster, []))
            while not cluster.observer.conditions:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            asking = asyncio.create_task(cluster.observer.refresh())
            while len([one for one in script.asked if one.path.endswith(GRAPHS)]) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            following.cancel()
            async with asyncio.timeout(5):
                await asking

    async def test_a_right_that_is_given_later_is_used(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        later = Said(event("MODIFIED", graph(version="12", generation=2, replicas=5)), hold=True)
        script = Scripted(watches=deque([refused(403), later]), lists=deque([page(graph()), page(graph())]))
        async with connected(script, tmp_path, attrs.evolve(POLLING, relist_s=0.05)) as cluster:
            shown = [told(one) for one in await observed(cluster, 2)]
            assert shown == [("Listed", {"a": 2}), ("Seen", "a", 5)]
            assert cluster.observer.conditions == ()
        said = [one.getMessage() for one in caplog.records if "watch dynamo" in one.getMessage()]
        assert [line.split()[0] for line in said] == ["MISSING", "the"], "each change is told once"

    async def test_adapters_that_may_not_be_listed_keep_what_has_one_from_being_scaled(self, tmp_path: Path) -> None:
        script = Scripted(lists=deque([page(graph("a", scalingAdapter={}), graph("b", uid="ub"))]))
        script.others.append(refused(403))
        async with connected(script, tmp_path) as cluster:
            (listed,) = await observed(cluster, 1)
        assert isinstance(listed, Listed)
        adapted, plain = listed.deployments
        assert [one.pool(Role.PREFILL) is not None for one in (adapted, plain)] == [False, True]
        assert adapted.totals.charged == 4
        assert adapted.unscaled_because(Role.PREFILL) == "component w has a scaling adapter, which we may not read"

    @pytest.mark.parametrize("kind", [GRAPHS, ADAPTERS])
    async def test_what_may_not_be_written_is_counted_and_not_scaled(self, kind: str, tmp_path: Path) -> None:
        own = page({"metadata": {**graph()["metadata"], "name": "a-w"}, "spec": ADAPTED})
        script = Scripted(forbidden={("patch", kind)})
        script.lists.append(page(graph("a", scalingAdapter={}), graph("b", uid="ub")))
        script.others.append(own)
        async with connected(script, tmp_path) as cluster:
            (listed,) = await observed(cluster, 1)
            assert [one.kind for one in cluster.observer.conditions] == ["write_forbidden"]
        assert isinstance(listed, Listed)
        held = {one.id.name: one.unscaled_because(Role.PREFILL) for one in listed.deployments}
        assert held == {
            "a": "component w has a scaling adapter, which we may not write" if kind == ADAPTERS else None,
            "b": "component w is written in its deployment, which we may not" if kind == GRAPHS else None,
        }
        assert sum(one.totals.charged for one in listed.deployments) == 8

    @pytest.mark.parametrize(
        "said", [refused(403), refused(500), Said(b"{}", 201), Said(b"half", 201), Said(b'{"status":{}}', 201)]
    )
    async def test_where_nobody_says_whether_we_may_write_the_write_will_tell(self, said: Said, tmp_path: Path) -> None:
        script = Scripted(lists=deque([page(graph())]), reviews=deque([said] * 2))
        async with connected(script, tmp_path) as cluster:
            assert [told(one) for one in await observed(cluster, 1)] == [("Listed", {"a": 2})]
            assert cluster.observer.conditions == ()
        assert not script.reviews

    async def follow(self, cluster: Cluster, shown: list[object]) -> None:
        async for observation in cluster.observer.observe():
            shown.append(told(observation))  # noqa: PERF401 - they are read as they come


ADAPTED = {"replicas": 2, "dgdRef": {"name": "a", "componentName": "w"}}


async def test_a_token_that_was_refused_is_read_again(tmp_path: Path) -> None:
    script = Scripted()
    script.lists += [refused(401), page(graph())]
    async with connected(script, tmp_path) as cluster:
        rotated = json.loads((tmp_path / "kubeconfig").read_text())
        rotated["users"][0]["user"]["token"] = "another-token"  # noqa: S105 - not a secret
        (tmp_path / "kubeconfig").write_text(json.dumps(rotated))
        assert [told(one) for one in await observed(cluster, 1)] == [("Listed", {"a": 2})]
    used = [one.headers["Authorization"] for one in script.asked]
    assert used[0] == "Bearer the-token"
    assert used[-1] == "Bearer another-token"
