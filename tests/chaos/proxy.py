"""A proxy between one planner and the API server that does to requests and answers what networks do.

A request meets the fault of the first *rule* that takes it, or else what the *weather* has for it. The planner speaks
plain HTTP with the proxy, on the loopback interface; the proxy verifies the API server as any client does. A request
that its sender has given up goes its way all the same, as it does in a network.

Rules of this file: the proxy runs on an event loop in a thread of its own, and everything public may be called from
any other. It sends a request as often as the fault says, never once more.
"""

import asyncio
import contextlib
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import attrs
from aiohttp import web
from yarl import URL

from tests.chaos.faults import Fault, Weather, watches
from tests.cluster.client import Access

T = TypeVar("T")

_HOST = "127.0.0.1"
_LARGEST = 2**24
_CONNECT_S = 5.0
_OVERTAKEN_WITHIN_S = 1.0
_STOP_WITHIN_S = 5.0
_LINGER_S = 0.1  # a connection takes a few turns of the loop to end
_REMEMBERED = 100_000
_SENT_ON = ("Accept", "Authorization", "Content-Type", "User-Agent")
_SENT_BACK = ("Content-Type", "Retry-After")
_HALF_A_LINE = b'{"type":"MODIFIED","object":{"apiVersion":"nvid'


@attrs.frozen
class Exchange:
    """One request, the name of the fault that it met, and the status of the answer: None where there was none."""

    method: str
    path: str
    fault: str
    status: int | None


@attrs.define(eq=False)
class Rule:
    """*fault* for the requests of *method* whose path contains *path* and whose body *body* says yes to.

    It takes so many *times*, None: for ever. Where *held*, they wait for `FaultProxy.release` before all else but a
    cut. *arrived* is set when the first has come.
    """

    fault: Fault = attrs.field(factory=Fault)
    method: str | None = None
    path: str = ""
    body: Callable[[bytes], bool] | None = None
    times: int | None = None
    held: bool = False
    taken: int = attrs.field(default=0, init=False)
    arrived: threading.Event = attrs.field(factory=threading.Event, init=False)
    released: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    def takes(self, method: str, path: str, body: bytes) -> bool:
        """Say whether such a request is this rule's; it counts as one of its times."""
        alike = self.method in (None, method) and self.path in path and (self.body is None or self.body(body))
        if not alike or self.taken == self.times:
            return False
        self.taken += 1
        self.arrived.set()
        return True


class FaultProxy:
    """Passes on what comes to *url*; use it as a context manager."""

    url: str

    def __init__(self, access: Access, *, weather: Weather | None = None) -> None:
        """Prepare to stand before the server of *access*; nothing listens yet."""
        self.weather = weather
        self.met: Counter[str] = Counter()  # requests by the name of the fault
        self.log: deque[Exchange] = deque(maxlen=_REMEMBERED)
        self._upstream = access
        self._rules: list[Rule] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._parted = False
        self._open: set[asyncio.Transport] = set()
        self._under_way: set[asyncio.Task[web.Response | None]] = set()
        self._written = asyncio.Event()  # set, and replaced, whenever a write was answered
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._stack = contextlib.AsyncExitStack()

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self.url = f"http://{_HOST}:{self._do(self._start())}"
        return self

    def __exit__(self, *_: object) -> None:
        """Cut every connection and stop; what is held back is never sent on."""
        try:
            self._do(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)
            self._loop.close()

    @property
    def access(self) -> Access:
        """Give the access of somebody who comes through the proxy."""
        return attrs.evolve(self._upstream, url=self.url)

    def rule(self, rule: Rule) -> Rule:
        """Let *rule* hold from the next request on, after the rules that hold already."""
        self._call(lambda: self._rules.append(rule))
        return rule

    def lift(self, rule: Rule) -> None:
        """Let *rule* take nothing more; what it holds back stays so."""
        self._call(lambda: self._rules.remove(rule))

    def release(self, rule: Rule) -> None:
        """Send on what *rule* holds back, now and from here on."""
        self._call(rule.released.set)

    def cut(self) -> None:
        """Cut every open connection; its owner may connect again."""
        self._call(self._cut)

    def part(self) -> None:
        """Cut every connection, and every new one, until `heal`."""
        self._call(self._part)

    def heal(self) -> None:
        """End a `part`."""
        self._call(lambda: setattr(self, "_parted", False))

    def _call(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            action()

        self._do(act())

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=30)

    async def _start(self) -> int:
        application = web.Application(client_max_size=_LARGEST)
        application.router.add_route("*", "/{everything:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        secure = urlsplit(self._upstream.url).scheme == "https"
        tls = ssl.create_default_context(cadata=self._upstream.ca) if secure else True
        self._http = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=tls),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            )
        )
        self._http._retry_connection = False  # noqa: SLF001 - nothing public keeps it from sending a PUT twice
        await web.TCPSite(runner, _HOST, 0).start()
        port: int = runner.addresses[0][1]
        return port

    async def _stop(self) -> None:
        self._part()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        async with asyncio.timeout(_STOP_WITHIN_S):
            await self._stack.aclose()
        await asyncio.sleep(_LINGER_S)

    def _cut(self) -> None:
        for transport in self._open:
            transport.abort()
        self._open.clear()

    def _part(self) -> None:
        self._parted = True
        self._cut()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        if transport is None or self._parted:
            return _hung_up(request)
        self._open.add(transport)
        try:
            return await self._passed_on(request)
        finally:
            self._open.discard(transport)

    async def _passed_on(self, request: web.Request) -> web.StreamResponse:
        body, method, path = await request.read(), request.method, request.raw_path
        rule = next((one for one in self._rules if one.takes(method, path, body)), None)
        fault = self._drawn(method, path) if rule is None else rule.fault
        self.met[fault.name] += 1
        if fault.cut:
            _hung_up(request)
        if rule is not None and rule.held:
            await rule.released.wait()
        if fault.before_s:
            await asyncio.sleep(fault.before_s)
        if fault.overtaken:
            await self._overtaken()
        if watches(method, path) and fault.copies:
            return await self._streamed(request, fault)
        answer = await self._answer(request, body, fault.copies)
        self.log.append(Exchange(method, path, fault.name, None if answer is None else answer.status))
        if fault.after_s:
            await asyncio.sleep(fault.after_s)
        while fault.silent and request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nothing tells of the end of a connection that is not read
        return _hung_up(request) if answer is None or fault.lost or self._parted else answer

    def _drawn(self, method: str, path: str) -> Fault:
        if self.weather is None:
            return Fault()
        key = (method, urlsplit(path).path)
        self._counts[key] += 1
        return self.weather.fault(method, path, self._counts[key])

    async def _overtaken(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OVERTAKEN_WITHIN_S):
                await self._written.wait()

    async def _answer(self, request: web.Request, body: bytes, copies: int) -> web.Response | None:
        """Send the request so many times and return the first answer; None where there is none."""
        sent = [asyncio.create_task(self._sent(request, body)) for _ in range(copies)]
        for task in sent:
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        if not sent:
            return None
        done, _ = await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
        if request.method != "GET":
            self._written.set()
            self._written = asyncio.Event()
        return done.pop().result()

    async def _sent(self, request: web.Request, body: bytes) -> web.Response | None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._asked(request, body) as answer:
                headers = _some(answer.headers, _SENT_BACK)
                return web.Response(status=answer.status, body=await answer.read(), headers=headers)
        return None

    async def _streamed(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        """Pass on a stream until it ends, or is cut in the middle of a line."""
        response = web.StreamResponse()
        with contextlib.suppress(aiohttp.ClientError, OSError):
            try:
                async with asyncio.timeout(fault.stream_s), self._asked(request) as answer:
                    response.set_status(answer.status)
                    response.headers.update(_some(answer.headers, _SENT_BACK))
                    await response.prepare(request)
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                    await response.write_eof()
                    return response
            except TimeoutError:
                await response.write(_HALF_A_LINE)
        return _hung_up(request)

    def _asked(self, request: web.Request, body: bytes = b"") -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        url = URL(self._upstream.url + request.raw_path, encoded=True)
        return self._http.request(request.method, url, headers=_some(request.headers, _SENT_ON), data=body or None)


def _some(headers: Any, names: tuple[str, ...]) -> dict[str, str]:  # noqa: ANN401 - of either side
    return {name: headers[name] for name in names if name in headers}


def _hung_up(request: web.BaseRequest) -> web.Response:
    """Cut the connection of *request*; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
