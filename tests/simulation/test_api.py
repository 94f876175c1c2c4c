"""What the simulated API server promises; that a real one does the same is shown beside the tests on a real one."""

from random import Random

import pytest

from tests.simulation.api import GRAPHS, Change, GoneError, Json, ModelApi
from tests.simulation.scripts import FENCE, run, script

KEY = (GRAPHS, "ns", "a")


def scaled(api: ModelApi, replicas: int, *, old: str | None, new: str) -> int:
    fenced: list[Json] = [{"op": "test", "path": FENCE, "value": old}, {"op": "add", "path": FENCE, "value": new}]
    write = {"op": "add", "path": "/spec/components/0/replicas", "value": replicas}
    return api.patch(KEY, [*fenced, write]).status


def created() -> ModelApi:
    api = ModelApi()
    spec = {"components": [{"name": "P", "replicas": 1}]}
    api.create(KEY, {"metadata": {"annotations": {"other": "x"}}, "spec": spec})
    return api


def test_of_two_writes_that_test_the_same_fence_one_lands() -> None:
    api = created()
    assert [scaled(api, 2, old=None, new="f1"), scaled(api, 3, old=None, new="f2")] == [200, 422]
    assert api.get(KEY).body["spec"]["components"][0]["replicas"] == 2


def test_a_patch_that_does_not_land_changes_nothing() -> None:
    api = created()
    before = api.get(KEY)
    assert scaled(api, 2, old="f9", new="f1") == 422
    assert (api.get(KEY), api.revision) == (before, 2)


def test_of_two_puts_of_the_same_version_one_lands() -> None:
    api = created()
    read = api.get(KEY).body
    puts = [api.replace(KEY, {**read, "spec": {"components": []}}).status for _ in range(2)]
    assert puts == [200, 409]


def test_every_earlier_revision_can_be_read_until_it_is_forgotten() -> None:
    api = created()
    scaled(api, 2, old=None, new="f1")
    first = api.read(KEY, at=2)
    assert first is not None
    assert first["spec"]["components"][0]["replicas"] == 1
    assert api.listed(GRAPHS, at=1) == (1, [])
    api.compact(3)
    with pytest.raises(GoneError):
        api.read(KEY, at=2)
    with pytest.raises(GoneError):
        api.changes(GRAPHS, since=2)


@pytest.mark.parametrize("seed", range(20))
def test_the_log_tells_of_every_change_in_order_and_of_nothing_else(seed: int) -> None:
    heard: list[Change] = []
    api = ModelApi(heard.append)
    rng = Random(seed)  # noqa: S311 - no secret
    run(api, script(rng, 100), namespace="ns")
    assert heard == api.log
    assert [change.revision for change in heard] == list(range(2, api.revision + 1))
    for change in heard:
        stored = api.read(change.key, at=change.revision)
        assert stored == (None if change.kind == "DELETED" else change.obj)


def test_the_same_script_does_the_same_each_time() -> None:
    rng = Random(7)  # noqa: S311 - no secret
    requests = script(rng, 200)
    first, second = (run(ModelApi(), requests, namespace="ns") for _ in range(2))
    assert first == second
    assert {told.became for told in first} >= {"unchanged", "changed", "404 to 200", "200 to 404"}
