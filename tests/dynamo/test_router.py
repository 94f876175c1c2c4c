"""Dynamo's own frontend, workers and pool routers serve through our router, on both versions of the runtime.

Rules of this file: starting a Dynamo takes most of the time, so the tests of a class share one and run in their order;
the last of each ends something for good.
"""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from openai import APIError

from tests.cluster.waiting import eventually
from tests.dynamo.environments import RUNTIMES
from tests.dynamo.plane import READY_WITHIN_S, Plane
from tests.dynamo.serving import MODEL, Serving, free_port, text
from tests.routerworld.routers import aggregated, disaggregated

PATIENTLY = {"within_s": READY_WITHIN_S, "every_s": 0.1}
MIDWAY = 5
LONG = 250
"""Tokens of an answer that takes some seconds."""


def _plane(request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> Plane:
    folder: Path = folders.mktemp("dynamo")
    version: str = request.param
    return Plane(folder, version)


@pytest.mark.timeout(180)
class TestOnePoolDoesAllTheWork:
    @pytest.fixture(scope="class", params=RUNTIMES)
    @staticmethod
    def serving(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
        config = aggregated("pool-fast", "pool-slow")
        override = {"min_priority": 5, "max_priority": 9, "target_pool": 0}
        config["agg_pool_selection_strategy"]["priority_overrides"] = [override]
        with Serving(_plane(request, tmp_path_factory), config) as made:
            yield made

    def test_with_no_pool_at_all_the_model_is_listed_and_a_request_waits_for_the_first(self, serving: Serving) -> None:
        with ThreadPoolExecutor(1) as pool:
            early = pool.submit(lambda: list(serving.stream(4, ttft=900.0)))
            eventually(lambda: serving.metric("gp_router_waiting"))
            for namespace in ("pool-fast", "pool-slow"):
                serving.start(namespace, "--disaggregation-mode", "agg")
            chunks = early.result(timeout=90)
        assert len(text(chunks).split()) == 4
        started = "dynamo_component_router_requests_started_total"
        assert serving.metric(started, dynamo_namespace="pool_slow") == 1

    def test_chats_stream_from_the_pool_that_the_grid_names(self, serving: Serving) -> None:
        _until_both_work(serving)
        for ttft, pool in ((100.0, "pool-fast"), (900.0, "pool-slow")):
            chunks = list(serving.stream(6, ttft=ttft))
            assert serving.served(chunks[0].id) == {pool}
            assert len(text(chunks).split()) == 6
            assert chunks[-1].choices[0].finish_reason == "length"

    def test_completions_too_and_a_priority_goes_round_the_grid(self, serving: Serving) -> None:
        asks = serving.asks(ttft=900.0, priority=7)
        answer = serving.client.completions.create(model=MODEL, prompt="one two", max_tokens=3, extra_body=asks)
        assert serving.served(answer.id) == {"pool-fast"}
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 3)

    def test_the_runtimes_own_probes_and_metrics_are_those_of_the_router(self, serving: Serving) -> None:
        health = httpx.get(f"http://127.0.0.1:{serving.system_port}/health").json()
        assert (health["status"], health["endpoints"]) == ("ready", {"generate": "ready"})
        assert serving.metric("gp_router_outcomes_total", dynamo_namespace="pool_slow", outcome="ok") >= 2
        assert serving.metric("dynamo_component_requests_total", dynamo_component="global_router") >= 4

    def test_a_client_that_leaves_stops_the_work_on_its_answer(self, serving: Serving) -> None:
        stream = serving.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "one"}], max_tokens=2_000, stream=True
        )
        next(iter(stream))
        assert serving.metric("gp_router_in_flight") == 1
        stream.close()
        eventually(lambda: serving.metric("gp_router_in_flight") == 0)

    def test_a_pool_that_dies_midway_is_an_error_for_the_client_and_left_out_from_then_on(
        self, serving: Serving
    ) -> None:
        stream = serving.stream(LONG, ttft=900.0)
        chunks = [next(stream) for _ in range(MIDWAY)]
        assert serving.served(chunks[0].id) == {"pool-slow"}
        serving.routers["pool-slow"].kill()
        with pytest.raises(APIError):
            list(stream)
        for _ in range(3):
            chunks = list(serving.stream(4, ttft=900.0))
            assert serving.served(chunks[0].id) == {"pool-fast"}
            assert len(text(chunks).split()) == 4

    def test_a_router_that_is_told_to_stop_ends_what_is_under_way(self, serving: Serving) -> None:
        stream = serving.stream(LONG)
        chunks = [next(stream)]
        os.kill(serving.router.pid, signal.SIGTERM)
        chunks += stream
        assert len(text(chunks).split()) == LONG
        eventually(lambda: not serving.router.running)

    def test_a_router_that_is_killed_midway_is_an_error_for_the_client_and_the_next_one_serves(
        self, serving: Serving
    ) -> None:
        serving.succeed("second")
        eventually(lambda: _answers(serving), **PATIENTLY)
        stream = serving.stream(LONG)
        assert len([next(stream) for _ in range(MIDWAY)]) == MIDWAY
        serving.router.kill()
        with pytest.raises(APIError):
            list(stream)
        serving.succeed("third")
        eventually(lambda: _answers(serving), **PATIENTLY)


@pytest.mark.timeout(180)
class TestInputAndOutputHavePoolsOfTheirOwn:
    @pytest.fixture(scope="class", params=RUNTIMES)
    @staticmethod
    def serving(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
        config = disaggregated(["pre-fast", "pre-slow"], ["dec-fast", "dec-slow"])
        with Serving(_plane(request, tmp_path_factory), config) as made:
            for speed in ("fast", "slow"):
                prefill = ("--disaggregation-mode", "prefill", "--bootstrap-ports", str(free_port()))
                made.start(f"pre-{speed}", *prefill, component="prefill")
                made.start(f"dec-{speed}", "--disaggregation-mode", "decode")
            _until_both_work(made)
            yield made

    def test_input_and_output_land_in_the_pools_that_the_grids_name(self, serving: Serving) -> None:
        for ttft, itl, pools in (
            (100.0, 90.0, {"pre-fast", "dec-slow"}),
            (900.0, 10.0, {"pre-slow", "dec-fast"}),
        ):
            chunks = list(serving.stream(6, ttft=ttft, itl=itl))
            assert serving.served(chunks[0].id) == pools
            assert len(text(chunks).split()) == 6
        answer = serving.client.completions.create(
            model=MODEL, prompt="one", max_tokens=3, extra_body=serving.asks(ttft=900.0, itl=90.0)
        )
        assert serving.served(answer.id) == {"pre-slow", "dec-slow"}

    def test_a_pool_that_dies_is_left_out(self, serving: Serving) -> None:
        stream = serving.stream(LONG, itl=90.0)
        assert len([next(stream) for _ in range(MIDWAY)]) == MIDWAY
        serving.routers["dec-slow"].kill()
        with pytest.raises(APIError):
            list(stream)
        serving.routers["pre-slow"].kill()
        chunks = list(serving.stream(4, ttft=900.0, itl=90.0))
        assert serving.served(chunks[0].id) == {"pre-fast", "dec-fast"}
        assert len(text(chunks).split()) == 4

    def test_a_router_that_is_killed_midway_is_an_error_for_the_client(self, serving: Serving) -> None:
        stream = serving.stream(LONG)
        assert len([next(stream) for _ in range(MIDWAY)]) == MIDWAY
        serving.router.kill()
        with pytest.raises(APIError):
            list(stream)


def test_flags_of_the_other_transport_are_refused_by_name(tmp_path: Path) -> None:
    plane = Plane(tmp_path, RUNTIMES[0])
    (tmp_path / "router.json").write_text(json.dumps(aggregated("a")))
    flags = ("--config", str(tmp_path / "router.json"), "--pool", "a=http://127.0.0.1:1", "--listen", "127.0.0.1:1")
    router = plane.ours("router", "gpadapters.dynamo.global_router", *flags)
    router.start()
    try:
        eventually(lambda: not router.running)
    finally:
        router.kill()
    assert router.tail().splitlines() == [
        "gpctl: --listen means nothing with --transport dynamo",
        "gpctl: --pool means nothing with --transport dynamo",
        "gpctl: model_name must be set via --model-name or DYN_GLOBAL_ROUTER_MODEL_NAME",
    ]


def _answers(serving: Serving) -> bool:
    """Say whether a chat comes to its end now."""
    try:
        return len(text(list(serving.stream(2))).split()) == 2
    except APIError:
        return False


def _until_both_work(serving: Serving) -> None:
    """Wait until every pool serves: its router may be there before the worker that it needs."""
    fast, slow = ({name for name in serving.routers if name.endswith(speed)} for speed in ("fast", "slow"))
    eventually(lambda: _served_by(serving, 100.0, 10.0) == fast, **PATIENTLY)
    eventually(lambda: _served_by(serving, 900.0, 90.0) == slow, **PATIENTLY)  # and nobody in the place of another


def _served_by(serving: Serving, ttft: float, itl: float) -> set[str]:
    try:
        return serving.served(next(serving.stream(1, ttft=ttft, itl=itl)).id)
    except APIError:
        return set()
