import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
import httpx
import pytest

from tests.chaos.faults import (
    Fault,
    Weather,
    cut_after,
    delayed,
    doubled,
    dropped,
    late,
    reordered,
    storm,
    unanswered,
)
from tests.chaos.proxy import FaultProxy, Rule
from tests.cluster import Access, eventually

LONG_S = 60.0  # longer than any test waits


@attrs.define
class Server:
    """Says to every write how many it has had, and streams a line every few milliseconds to whoever watches."""

    url: str = ""
    heard: list[tuple[str, str, bytes]] = attrs.field(factory=list)

    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.heard]


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()
    ending = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told.heard.append((self.command, self.path, body))
            if "watch=" in self.path:
                return self.stream()
            answer = json.dumps({"count": len(told.heard), "token": self.headers.get("Authorization")}).encode()
            self.send_response(200 if len(told.heard) == 1 or b"again" not in body else 409)
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer)
            return None

        def stream(self) -> None:
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            with suppress(OSError):
                while not ending.wait(0.01):
                    self.wfile.write(b'{"line": 1}\n')

        do_GET = do_PUT = do_PATCH = do_POST = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: Any) -> None:  # noqa: ANN401 - the base class's
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        told.url = f"http://127.0.0.1:{listening.server_port}"
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield told
        ending.set()
        listening.shutdown()


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(Access(server.url, ca="", token="")) as proxy:
        yield proxy


@contextmanager
def connected(proxy: FaultProxy, *, timeout_s: float = 10.0) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.url, timeout=timeout_s, trust_env=False) as http:
        yield http


def test_what_meets_no_fault_is_passed_on_and_answered(proxy: FaultProxy, server: Server) -> None:
    with connected(proxy) as http:
        answer = http.patch("/a/b%2Fc?x=1", content=b"[]", headers={"Authorization": "Bearer me"})
    assert answer.json() == {"count": 1, "token": "Bearer me"}
    assert server.heard == [("PATCH", "/a/b%2Fc?x=1", b"[]")]
    assert [(one.method, one.fault, one.status) for one in proxy.log] == [("PATCH", "none", 200)]


def test_a_rule_takes_what_matches_it_and_as_often_as_it_says(proxy: FaultProxy, server: Server) -> None:
    rule = proxy.rule(Rule(dropped(), method="PUT", path="/a", body=lambda body: b"x" in body, times=1))
    with connected(proxy) as http:
        for method, path, body in (("POST", "/a", b"x"), ("PUT", "/b", b"x"), ("PUT", "/a", b"y")):
            assert http.request(method, path, content=body).status_code == 200
        assert not rule.arrived.is_set()
        with pytest.raises(httpx.TransportError):
            http.put("/a", content=b"x")
        assert http.put("/a", content=b"x").status_code == 200
    assert rule.arrived.is_set()
    assert len(server.heard) == 4
    assert proxy.met == {"none": 4, "dropped": 1}


def test_a_rule_that_is_lifted_takes_nothing_more(proxy: FaultProxy) -> None:
    rule = proxy.rule(Rule(dropped()))
    proxy.lift(rule)
    with connected(proxy) as http:
        assert http.get("/").status_code == 200


def test_a_request_without_an_answer_has_been_executed(proxy: FaultProxy, server: Server) -> None:
    proxy.rule(Rule(unanswered()))
    with connected(proxy) as http, pytest.raises(httpx.TransportError):
        http.put("/", content=b"once")
    assert server.bodies() == [b"once"]


@pytest.mark.parametrize(("fault", "executed"), [(dropped(silent=True), 0), (unanswered(silent=True), 1)])
def test_silence_lasts_until_the_sender_gives_up(
    fault: Fault, executed: int, proxy: FaultProxy, server: Server
) -> None:
    proxy.rule(Rule(fault))
    with connected(proxy, timeout_s=0.2) as http, pytest.raises(httpx.ReadTimeout):
        http.put("/")
    assert len(server.heard) == executed


def test_a_late_request_is_executed_when_its_sender_has_given_up(proxy: FaultProxy, server: Server) -> None:
    proxy.rule(Rule(late(0.3), times=1))
    with connected(proxy) as http:
        with pytest.raises(httpx.TransportError):
            http.put("/", content=b"late")
        http.put("/", content=b"later")
    eventually(lambda: server.bodies() == [b"later", b"late"])


def test_what_is_held_is_executed_when_it_is_released_whoever_still_waits(proxy: FaultProxy, server: Server) -> None:
    rule = proxy.rule(Rule(method="PATCH", held=True))
    with connected(proxy, timeout_s=0.2) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.patch("/", content=b"held")
        assert rule.arrived.is_set()
        http.put("/", content=b"free")
        proxy.release(rule)
        eventually(lambda: server.bodies() == [b"free", b"held"])
        http.patch("/", content=b"no more")


@pytest.mark.parametrize("fault", [delayed(0.2), delayed(0.2, answer=True)])
def test_a_delay_is_waited_for(fault: Fault, proxy: FaultProxy) -> None:
    proxy.rule(Rule(fault))
    with connected(proxy) as http:
        began = time.monotonic()
        assert http.put("/").status_code == 200
        assert time.monotonic() - began >= 0.2


def test_a_doubled_request_is_executed_twice_and_answered_once(proxy: FaultProxy, server: Server) -> None:
    proxy.rule(Rule(doubled()))
    with connected(proxy) as http:
        assert http.put("/", content=b"again").status_code in {200, 409}
    eventually(lambda: server.bodies() == [b"again", b"again"])


def test_another_write_overtakes_what_is_reordered(proxy: FaultProxy, server: Server) -> None:
    rule = proxy.rule(Rule(reordered(), times=1))

    def first() -> None:
        with connected(proxy) as http:
            assert http.put("/", content=b"first").status_code == 200

    thread = threading.Thread(target=first)
    thread.start()
    assert rule.arrived.wait(10)
    with connected(proxy) as http:
        http.put("/", content=b"second")
    thread.join(timeout=10)
    assert server.bodies() == [b"second", b"first"]


def test_what_nothing_overtakes_waits_no_longer_than_a_moment(proxy: FaultProxy) -> None:
    proxy.rule(Rule(reordered()))
    with connected(proxy) as http:
        assert http.put("/").status_code == 200


def test_a_stream_is_passed_on_line_by_line_and_cut_in_the_middle_of_one(proxy: FaultProxy) -> None:
    proxy.rule(Rule(cut_after(0.3), times=1))
    received: list[bytes] = []
    with connected(proxy) as http, http.stream("GET", "/x?watch=1") as stream, pytest.raises(httpx.TransportError):
        received.extend(stream.iter_raw())
    *lines, rest = b"".join(received).split(b"\n")
    assert lines
    assert set(lines) == {b'{"line": 1}'}
    assert rest
    with pytest.raises(json.JSONDecodeError):
        json.loads(rest)


def test_every_connection_is_cut_at_once(proxy: FaultProxy) -> None:
    with connected(proxy, timeout_s=LONG_S) as http, http.stream("GET", "/x?watch=1") as stream:
        chunks = stream.iter_raw()
        next(chunks)
        proxy.cut()
        with pytest.raises(httpx.TransportError):
            list(chunks)
        assert http.get("/").status_code == 200


def test_nobody_gets_through_until_the_parted_are_healed(proxy: FaultProxy, server: Server) -> None:
    with connected(proxy) as http:
        proxy.part()
        for _ in range(3):
            with pytest.raises(httpx.TransportError):
                http.get("/")
        assert not server.heard
        proxy.heal()
        assert http.get("/").status_code == 200


def test_a_server_that_is_not_there_is_a_cut_connection(proxy: FaultProxy) -> None:
    with FaultProxy(Access("http://127.0.0.1:1", ca="", token="")) as lonely, connected(lonely) as http:
        with pytest.raises(httpx.TransportError):
            http.put("/")
        assert [one.status for one in lonely.log] == [None]
    assert not proxy.log


def test_a_seed_gives_each_request_the_same_fault_every_time() -> None:
    def met(seed: int, *paths: str) -> list[list[Fault]]:
        weather = storm(seed)
        return [[weather.fault("PUT", path, count) for count in range(200)] for path in paths]

    assert met(1, "/a", "/b") == met(1, "/a", "/b")
    assert met(1, "/a") != met(2, "/a")
    assert met(1, "/a") != met(1, "/b")


def test_a_storm_has_every_fault_and_leaves_most_alone() -> None:
    weather = storm(1, share=0.2)
    kinds = [("PUT", "/a", weather.writes), ("GET", "/a", weather.reads), ("GET", "/a?watch=1", weather.watches)]
    for method, path, odds in kinds:
        met = {weather.fault(method, path, count) for count in range(2_000)}
        assert met == {Fault(), *odds}
    faults = [weather.fault("PUT", "/a", count) for count in range(2_000)]
    assert 300 < sum(fault != Fault() for fault in faults) < 500


def test_the_weather_falls_on_what_no_rule_takes(server: Server) -> None:
    weather = Weather(1, writes={unanswered(): 1.0})
    with FaultProxy(Access(server.url, ca="", token=""), weather=weather) as proxy, connected(proxy) as http:
        proxy.rule(Rule(path="/mild"))
        assert http.put("/mild").status_code == 200
        with pytest.raises(httpx.TransportError):
            http.put("/rough")
        assert http.get("/rough").status_code == 200
        assert proxy.met == {"none": 2, "unanswered": 1}
