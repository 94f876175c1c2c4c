"""The API server of the end-to-end tests: one per pytest worker, started by the first test that needs it.

Rules of this file: each test uses a Kubernetes namespace of its own. The definitions belong to the whole server, so
`cluster` installs what a test wants to be served each time; it costs 0.1 s.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import BOTH, V1BETA1, ApiServer, Client, FakeOperator, Json, Served, install, webhook


@pytest.fixture(scope="session")
def assets() -> Path:
    """Give the folder of kube-apiserver and etcd, or skip; where GP_REQUIRE_APISERVER=1, as in CI, or fail."""
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    if not folder:
        reason = "KUBEBUILDER_ASSETS is not set: no folder with a kube-apiserver and an etcd to test against"
        if os.environ.get("GP_REQUIRE_APISERVER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(folder)


@pytest.fixture(scope="session")
def api_server(assets: Path) -> Iterator[ApiServer]:
    """Give this worker's API server, without any definition installed."""
    with ApiServer(assets) as server:
        yield server


@pytest.fixture(scope="session")
def conversion(api_server: ApiServer) -> Iterator[Json]:
    """Give the running conversion webhook of this worker's API server, as `install` takes it."""
    with webhook(certificate=api_server.ca_file, key=api_server.key_file) as definition:
        yield definition


@pytest.fixture
def served() -> Served:
    """Give the versions that `cluster` serves; a test or module overrides it."""
    return V1BETA1


@pytest.fixture
def cluster(api_server: ApiServer, served: Served, request: pytest.FixtureRequest) -> ApiServer:
    """Give the API server with Dynamo's definitions; with a conversion webhook when it serves both versions."""
    conversion = request.getfixturevalue("conversion") if served == BOTH else None
    install(api_server.client, served, conversion=conversion)
    return api_server


@pytest.fixture
def client(cluster: ApiServer) -> Client:
    """Give the admin's client."""
    return cluster.client


@pytest.fixture
def namespace(cluster: ApiServer) -> str:
    """Give a new Kubernetes namespace."""
    return cluster.namespace()


@pytest.fixture
def operator(cluster: ApiServer, served: Served) -> Iterator[FakeOperator]:
    """Give a running stand-in for Dynamo's operator, which acts at once unless told otherwise."""
    with FakeOperator(cluster.admin, version=served.versions[-1]) as operator:
        yield operator
