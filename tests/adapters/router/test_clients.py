"""Clients as people have them: the OpenAI package as it comes, and a thousand streams at once."""

import asyncio
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import openai
import pytest

from tests.cluster.waiting import eventually
from tests.routerworld import FakePool, RouterProcess, aggregated, chat
from tests.routerworld.answers import ask
from tests.routerworld.behave import EVENTS, stream

STREAMS = 1000


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[FakePool]:
    folder = tmp_path / "pool"
    folder.mkdir()
    with FakePool("slow", folder) as started:
        yield started


@pytest.fixture
def router(tmp_path: Path, pool: FakePool) -> Iterator[RouterProcess]:
    with RouterProcess(tmp_path, aggregated("slow"), pools=[f"slow={pool.url}"]) as started:
        yield started


@pytest.fixture
def client(router: RouterProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key="key", max_retries=0) as made:
        yield made


def test_the_openai_client_completes(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content == "hi"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 10


def test_the_openai_client_streams(client: openai.OpenAI, pool: FakePool) -> None:
    pool.behave("stream")
    with client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hello"}], stream=True
    ) as chunks:
        texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert len(texts) == EVENTS
    assert texts[0] == "hé\u2028🙂"


def test_the_openai_client_names_targets_and_sees_where_it_went(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="m", messages=[], extra_body={"nvext": {"router": {"ttft_target": 100}}}
    )
    assert (raw.headers["x-gp-pool"], raw.headers["x-gp-targets"]) == ("slow", "ttft=nvext, itl=middle")


def test_the_openai_client_lists_models_and_understands_refusals(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["m"]
    assert client.models.retrieve("m").id == "m"
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        client.chat.completions.create(model="other", messages=[])


def test_the_openai_client_is_told_that_a_stream_died(client: openai.OpenAI, pool: FakePool) -> None:
    pool.behave("die")
    chunks = client.chat.completions.create(model="m", messages=[], stream=True)
    with pytest.raises(openai.APIError, match="failed while it answered"):
        list(chunks)
    chunks.close()


async def _one(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(chat(stream=True, headers="Connection: close\r\n"))
    answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return answer


def _body(answer: bytes) -> bytes:
    """Return the chunks of an answer, joined."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    parts = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        parts.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return b"".join(parts)


@pytest.mark.timeout(120)
async def test_a_thousand_streams_at_once_lose_nothing(router: RouterProcess, pool: FakePool) -> None:
    await asyncio.to_thread(pool.behave, "stream")
    answers = await asyncio.gather(*(_one(router.port) for _ in range(STREAMS)))
    expected = stream()
    assert all(_body(answer) == expected for answer in answers)
    first = router.resident_kib()
    answers = await asyncio.gather(*(_one(router.port) for _ in range(STREAMS)))
    assert all(_body(answer) == expected for answer in answers)
    assert router.resident_kib() < first * 1.2
    await asyncio.to_thread(eventually, lambda: router.measure("gp_router_in_flight") == 0)
    assert router.measure("gp_router_outcomes_total", outcome="ok") == 2 * STREAMS


class _Planner(BaseHTTPRequestHandler):
    """Say of pools what a planner would."""

    pools: tuple[dict[str, object], ...] = ()

    def do_GET(self) -> None:
        found = {"/v1/pools": {"pools": self.pools}, "/v1/budget": {"headroom": 1}}[self.path]
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("said", "condition"),
    [
        ({"replicas": 0}, "cold"),
        ({"replicas": 2, "ready": 0}, "cold"),
        ({"replicas": 0, "present": 1}, "draining"),
        ({"replicas": 0, "gpus_per_replica": 8}, "denied"),
    ],
)
def test_a_pool_that_the_planner_says_cannot_serve_is_passed_over(
    said: dict[str, object], condition: str, tmp_path: Path
) -> None:
    planner = type("Planner", (_Planner,), {"pools": ({"participant": "ns/slow", "role": "worker", **said},)})
    folder = tmp_path / "pools"
    folder.mkdir()
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), planner) as server,
        FakePool("ns-fast", folder) as fast,
        FakePool("ns-slow", folder) as slow,
    ):
        Thread(target=server.serve_forever, daemon=True).start()
        flags = ("--planner", f"http://127.0.0.1:{server.server_port}")
        named = [f"{one.name}={one.url}" for one in (fast, slow)]
        with RouterProcess(tmp_path, aggregated("ns-fast", "ns-slow"), pools=named, flags=flags) as router:
            eventually(lambda: router.measure("gp_router_pool_condition", condition=condition) == 1)
            answer = ask(router.port, chat())
            assert (answer.headers["x-gp-pool"], answer.headers["x-gp-left-out"]) == ("ns-fast", f"ns-slow={condition}")
            assert not slow.requests
        server.shutdown()
