"""The API server of the end-to-end tests, and a Dynamo for each version of its runtime."""

from pathlib import Path

import pytest

from tests.dynamo.environments import RUNTIMES
from tests.dynamo.plane import Plane
from tests.e2e.conftest import api_server, assets, client, cluster, conversion, namespace, operator, served

__all__ = ["api_server", "assets", "client", "cluster", "conversion", "namespace", "operator", "served"]


@pytest.fixture(params=RUNTIMES)
def plane(request: pytest.FixtureRequest, tmp_path: Path) -> Plane:
    """Give a Dynamo that nobody uses yet, on each version of the runtime."""
    version: str = request.param
    return Plane(tmp_path, version)
