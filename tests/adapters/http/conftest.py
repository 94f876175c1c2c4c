from collections.abc import AsyncIterator

import pytest

from tests.adapters.http.world import World, until, world_of


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A planner that serves a and b (managed) beside c (not managed); 16 of at most 20 GPUs are used."""
    async with world_of() as made, made.planner.running(grace_s=0.1):
        await until(lambda: made.planner.state.ready)
        yield made
