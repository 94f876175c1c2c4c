"""Connections to a real API server end when nobody wants them any more."""

import asyncio
import gc
import warnings
from functools import partial
from pathlib import Path

import pytest

from gpadapters.kubernetes.session import Session, load_configuration
from tests.cluster import ApiServer


async def given_up(kubeconfig: Path, turns: int) -> None:
    """Give up two requests so many turns of the loop after they were begun, and close the session."""
    async with Session(partial(load_configuration, kubeconfig)) as session:
        asking = [asyncio.create_task(session.request("GET", "/readyz")) for _ in range(2)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


@pytest.mark.parametrize("turns", range(9, 21))
def test_a_request_that_is_given_up_at_any_moment_leaves_no_socket_open(
    turns: int, api_server: ApiServer, tmp_path: Path
) -> None:
    """Many of these moments lie in a TLS handshake, which asyncio ends a few turns after it was told to."""
    kubeconfig = api_server.admin.write_kubeconfig(tmp_path / "kubeconfig")
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(given_up(kubeconfig, turns))
        gc.collect()
    assert [str(one.message) for one in caught if one.category is ResourceWarning] == []
