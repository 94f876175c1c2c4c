"""What happens to the API server and to its store, on a server of its own.

Rules of this file: the server has no watch cache, so that the monitor can go on after its death. The tests share one
lane, and each leaves it at rest.
"""

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.chaos.lanes import Lane, lane
from tests.chaos.proxy import Rule
from tests.cluster import ApiServer, FakeOperator, Json, Options, disaggregated, install

pytestmark = [pytest.mark.xdist_group("store"), pytest.mark.timeout(300)]

CEILING = 12
GRAPHS = "/dynamographdeployments/"
UNCACHED = Options(apiserver_flags=("--watch-cache=false",))


@pytest.fixture(scope="module")
def server(assets: Path) -> Iterator[ApiServer]:
    with ApiServer(assets, UNCACHED) as server, FakeOperator(server.admin):
        install(server.client)
        yield server


@pytest.fixture(scope="module")
def here(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    deployments = [disaggregated(name, prefill=2, decode=2) for name in ("a", "b")]
    with lane(server, tmp_path_factory.mktemp("lane"), ceiling=CEILING, deployments=deployments, count=2) as here:
        yield here


def etcd(server: ApiServer, path: str, body: Json) -> Json:
    """Ask etcd itself."""
    flag = next(one for one in server.etcd.command if one.startswith("--listen-client-urls="))
    where = urlsplit(flag.partition("=")[2])
    with closing(http.client.HTTPConnection(str(where.hostname), where.port, timeout=10)) as connection:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer: Json = json.load(connection.getresponse())
        return answer


def test_an_api_server_that_is_killed_in_the_middle_of_a_write_is_waited_for(here: Lane, server: ApiServer) -> None:
    patch = here.leader().proxy.rule(Rule(method="PATCH", path=GRAPHS))
    with ThreadPoolExecutor(1) as threads:
        server.etcd.pause()  # the API server has the write, and cannot store it yet
        asking = threads.submit(here.ask, "a", prefill=3)
        assert patch.arrived.wait(0.5) is False, "what is not on record is not written"
        server.kill()
        server.etcd.resume()
        server.restart()
        assert asking.result()["status"] == "success"
    found = here.at_rest()
    assert (found.asked.over, found.promised.over) == (0, 0)
    assert here.replicas()["a", "prefill"] == 3


def test_a_store_without_space_promises_nothing_and_answers_reads(here: Lane, server: ApiServer) -> None:
    before = here.replicas()
    (member,) = etcd(server, "/v3/cluster/member/list", {})["members"]
    alarm = {"memberID": member["ID"], "alarm": "NOSPACE"}
    etcd(server, "/v3/maintenance/alarm", {"action": "ACTIVATE", **alarm})
    try:
        answer = here.once("a", decode=3)
        assert answer is None or answer["status"] != "success", answer
        assert here.replicas() == before
    finally:
        etcd(server, "/v3/maintenance/alarm", {"action": "DEACTIVATE", **alarm})
    assert here.ask("a", decode=3)["status"] == "success"
    assert here.at_rest().asked.over == 0
