"""The OpenAPI document against the server that it describes."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import positive_data_acceptance

from gpadapters.http.openapi import document
from tests.adapters.http.world import until, world_of


def serving(url: Future[str], stop: threading.Event) -> None:
    async def serve() -> None:
        async with world_of() as world, world.planner.running(grace_s=0.1):
            await until(lambda: world.planner.state.ready)
            url.set_result(world.url)
            await asyncio.to_thread(stop.wait)

    asyncio.run(serve())


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """Serve a world from a thread of its own: schemathesis waits for each answer."""
    url: Future[str] = Future()
    stop = threading.Event()
    thread = threading.Thread(target=serving, args=(url, stop))
    thread.start()
    yield url.result(timeout=10)
    stop.set()
    thread.join()


schema = schemathesis.openapi.from_dict(document("0"))


@schema.parametrize()
@settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_server_does_what_its_description_says(case: schemathesis.Case[Any], base_url: str) -> None:
    excluded: list[CheckFunction] = [positive_data_acceptance] if beyond_words(case) else []
    case.call_and_validate(base_url=base_url, timeout=10, excluded_checks=excluded)


def beyond_words(case: schemathesis.Case[Any]) -> bool:
    """Say whether *case* is refused for what JSON Schema has no word for.

    A role named twice, 3.0 for an integer, an id that was used for something else, a pool that is not there.
    """
    body: dict[str, Any] = case.body if isinstance(case.body, dict) else {}
    found = body.get("target_replicas")
    targets = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    roles = [str(one.get("sub_component_type")) for one in targets]
    named = body.get("request_id") is not None or "Idempotency-Key" in (case.headers or {})
    whole = [body.get("sequence"), *(one.get("desired_replicas") for one in targets)]
    return len(set(roles)) < len(roles) or any(isinstance(one, float) for one in whole) or named or "pools" in body
