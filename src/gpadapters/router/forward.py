"""One request on its way: chosen, sent, tried again, answered.

Rules of this file: no task and no timer per request, except while a connection is made; nothing is tried again once
the client has a byte; whatever happens, `_end` runs once and gives back everything that was taken.
"""

from gpadapters.router import refusals
from gpadapters.router.asking import Wish
from gpadapters.router.choose import Chosen, Way, about, about_once, again, first_serving, priority_of
from gpadapters.router.client import Client, Request
from gpadapters.router.fleet import Condition, Connection, Endpoint, Pool
from gpadapters.router.heads import AnswerHead
from gpadapters.router.refusals import Refusal, answer, error_event, status_line
from gpadapters.router.shared import Shared
from gpadapters.router.stream import Tap, usage
from gpadapters.router.twice import PrefillCall

_RETRIED = frozenset({502, 503, 504})
_FAILED = frozenset({500, 502, 503, 504})
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
_BODILESS = frozenset({204, 304})
_NOT_SENT = 0.0
_OK = status_line(200)
_SERVING = Condition.SERVING


class Exchange:
    """One request, its attempts and its answer."""

    # What most requests never change stands here, so that making one costs little.
    _attempts = 0
    _body: bytes | None = None
    _call: PrefillCall | None = None
    _chosen: Chosen | None = None
    _chunked = False
    _done = False
    _endpoint: Endpoint | None = None
    _first_at = 0.0
    _head: AnswerHead | None = None
    _last_at = 0.0
    _pool: Pool | None = None
    _prefill: Endpoint | None = None
    _prefill_way: Way | None = None
    _released = True
    """Whether the prefill endpoint was given back, or never taken."""
    _sent_at = _NOT_SENT
    _status = 0
    _tail = b""
    _tap: Tap | None = None
    _tried: list[Endpoint] | None = None
    _upstream: Connection | None = None

    def __init__(self, router: Shared, client: Client, request: Request, *, way: Way, wish: Wish) -> None:
        """Begin with nothing chosen."""
        self._router = router
        self._client = client
        self.request = request
        self.way = way
        self.wish = wish
        self._began = router.clock()

    # Going there.

    def begin(self, prefill: Way | None) -> None:
        """Choose and send, wait for a replica, or refuse."""
        way = self.way
        pool = way.order[0]
        measures = pool.measures
        measures.routed += 1
        measures.started += 1
        if prefill is not None:
            self._prefill_way = prefill
            prefill.order[0].measures.started += 1
        elif pool.planned is _SERVING and pool.in_flight < pool.limits[0]:  # the common case, in few steps
            endpoint = pool.pick(self._router.tick)
            if endpoint is not None:
                self._send(endpoint)
                return
        self.choose()

    def choose(self) -> None:
        """Choose among the pools as they are now; called again when they change while this waits."""
        now = self._router.tick
        chosen = first_serving(self.way, now)
        if isinstance(chosen, Chosen) and self._prefill_way is not None:
            chosen = self._choose_prefill(chosen, self._prefill_way)
        if chosen is None:
            self._wait()
        elif isinstance(chosen, Refusal):
            self._refuse(chosen)
        else:
            self._admit(chosen)

    def _choose_prefill(self, chosen: Chosen, way: Way) -> Chosen | Refusal | None:
        prefill = first_serving(way, self._router.tick)
        if not isinstance(prefill, Chosen):
            return prefill
        endpoint = prefill.pool.pick(self._router.tick)
        if endpoint is None:
            return refusals.NO_HEALTHY
        self._prefill = endpoint
        return Chosen(chosen.pool, chosen.left_out + prefill.left_out) if prefill.left_out else chosen

    def _wait(self) -> None:
        if not self._router.park(self):
            self._refuse(refusals.WAITING_FULL)

    def _admit(self, chosen: Chosen) -> None:
        pool = chosen.pool
        if not pool.admits(priority_of(self.wish)):
            pool.measures.shed += 1
            self._refuse(refusals.shed(pool.admission.retry_after_s))
            return
        endpoint = pool.pick(self._router.tick)
        if endpoint is None:
            self._refuse(refusals.NO_HEALTHY)
            return
        self._chosen = chosen
        if self._prefill is not None:
            self._prefill.begin()
            self._prefill.pool.in_flight += 1
            self._released = False
            if self._router.settings.two_calls:
                self._call = PrefillCall(self._router, self, self._prefill)
                self._call.begin()
                return
        self._send(endpoint)

    def prefilled(self, body: bytes) -> None:
        """Go on with *body*: the first of two calls has ended."""
        self._call = None
        self._body = body
        self._release_prefill()
        chosen = self._chosen
        endpoint = None if chosen is None else chosen.pool.pick(self._router.tick)
        if endpoint is None:
            self._refuse(refusals.NO_HEALTHY)
        else:
            self._send(endpoint)

    def _send(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._pool = pool = endpoint.pool
        pool.in_flight += 1
        pool.measures.attempts += 1
        endpoint.begin()
        self._attempts += 1
        self._sent_at = _NOT_SENT
        upstream = self._router.connection(endpoint)
        if upstream is None:
            self._router.connect(endpoint, self)
        else:
            self._ask(upstream, endpoint)

    def connected(self, connection: Connection) -> None:
        """Send the request: there is a new connection."""
        if self._done or self._endpoint is not connection.endpoint:
            self._router.keep(connection)
        else:
            self._ask(connection, connection.endpoint)

    def _ask(self, upstream: Connection, endpoint: Endpoint) -> None:
        self._upstream = upstream
        first = self._attempts == 1 and self._body is None
        self._sent_at = self._began if first else self._router.clock()
        request = self.request
        body = request.body if self._body is None else self._body
        start = b"POST %b HTTP/1.1\r\n%b" % (request.target, endpoint.request_head)
        if self._prefill is not None and self._body is None:
            start += b"x-prefiller-host-port: %b\r\n" % self._prefill.name
        upstream.ask(self, b"%b%bcontent-length: %d\r\n\r\n%b" % (start, request.head.lines, len(body), body))

    # What happens there.

    def lost(self, why: Refusal) -> None:
        """Go on after the connection ended early, could not be made, or said what is not HTTP."""
        upstream, self._upstream = self._upstream, None
        if self._done or self._endpoint is None:
            return
        if self._head is not None:
            self._cut(refusals.DIED)
        elif upstream is not None and upstream.reused:
            self._once_more(self._endpoint)  # it had been closed while it was idle: nobody's failure
        else:
            self._failed(why)

    def whole(self, head: AnswerHead, body: bytes) -> None:
        """Pass on a good answer that came in one read, as most do that are no streams: `received` in few steps."""
        pool, endpoint, client = self._pool, self._endpoint, self._client
        if self._done or pool is None or endpoint is None:
            self.received(head, body, complete=True, status=200)
            return
        router = self._router
        request = self.request
        self._done = True
        self._upstream = None
        measures = pool.measures
        took = router.clock() - self._began
        measures.ttft.observe(took)
        measures.requests += 1
        measures.outcomes["ok"] += 1
        endpoint.end()
        endpoint.succeeded()
        pool.in_flight -= 1
        tokens = usage(body)
        if self._prefill is not None:
            self._prefill.pool.measures.ttft.observe(took)
            self._release_prefill()
            self._count_prefill(self._prefill.pool, tokens[0])
        close = request.close or router.closing
        ending = b"connection: close\r\n" if close else b""
        parts = (_OK, head.lines, self._about(), ending, b"content-length: %d\r\n\r\n" % head.length, body)
        client.send(b"".join(parts))
        router.learn(request, self.way, self.wish, pool=pool, tokens=tokens)
        router.held_bytes -= len(request.body)
        if router.tells:
            router.tell(request, self.way, f"200 from {endpoint.address}, attempt {self._attempts}")
        client.done(close=close)

    def received(self, head: AnswerHead | None, body: bytes, *, complete: bool, status: int = 0) -> None:
        """Pass on what one read brought."""
        if self._done:
            return
        now = self._router.clock()
        if head is not None:
            if status in _RETRIED and self._retry_instead(complete=complete):
                return
            self._first(head, status, now)
            data = self._opening(head, body, complete=complete)
        else:
            self._seen(body, now)
            data = self._framed(body, complete=complete) if self._chunked else body
        if data:
            self._client.send(data)
        if complete:
            self._upstream = None
            self._complete()

    def _first(self, head: AnswerHead, status: int, now: float) -> None:
        """Remember that the answer began."""
        self._head = head
        self._status = status
        self._first_at = self._last_at = now
        if head.stream:
            self._tap = Tap()
        if status < _CLIENT_ERROR and self._pool is not None:
            took = now - self._began
            self._pool.measures.ttft.observe(took)
            if self._prefill is not None:
                self._prefill.pool.measures.ttft.observe(took)
        if self._prefill is not None:
            self._release_prefill()

    def _opening(self, head: AnswerHead, body: bytes, *, complete: bool) -> bytes:
        """Return the head of the answer, and the first of its body."""
        if self._tap is None:
            self._tail = body
        else:
            self._tap.passed(body)
        close = b"\r\nconnection: close" if self.request.close or self._router.closing else b""
        length = len(body) if complete and head.length < 0 else head.length  # what came in one piece is sent as one
        start = status_line(self._status) + head.lines + self._about()
        if length >= 0:
            return b"%bcontent-length: %d%b\r\n\r\n%b" % (start, length, close, body)
        if self._status in _BODILESS:
            return b"%bcontent-length: 0%b\r\n\r\n" % (start, close)
        self._chunked = True
        return b"%btransfer-encoding: chunked%b\r\n\r\n%b" % (start, close, self._framed(body, complete=complete))

    def _framed(self, body: bytes, *, complete: bool) -> bytes:
        """Return *body* as one chunk, and the last one after it if that is all."""
        data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return data + b"0\r\n\r\n" if complete else data

    def _about(self) -> bytes:
        """Return what the answer says about the decision."""
        chosen, way = self._chosen, self.way
        if chosen is None and self._attempts == 1:
            return about_once(way, self.wish)
        took = [(way, self._pool)]
        if self._prefill is not None and self._prefill_way is not None:
            took.append((self._prefill_way, self._prefill.pool))
        return about(took, self.wish, left_out=() if chosen is None else chosen.left_out, attempts=self._attempts)

    def _seen(self, body: bytes, now: float) -> None:
        """Count what passes."""
        tap = self._tap
        if tap is None:
            self._tail = self._tail[-1024:] + body
        else:
            before = tap.events
            events = tap.passed(body)
            if before and events and self._pool is not None:
                self._pool.measures.itl.observe((now - self._last_at) / events, events)
        self._last_at = now

    # When it goes wrong.

    def _once_more(self, endpoint: Endpoint) -> None:
        """Send again to the same endpoint, on a connection of its own."""
        self._sent_at = _NOT_SENT
        self._router.connect(endpoint, self)

    def _retry_instead(self, *, complete: bool) -> bool:
        """Say whether this answer is thrown away for another attempt."""
        upstream = self._upstream
        endpoint = self._next_endpoint()
        if endpoint is None:
            return False
        self._upstream = None
        if upstream is not None and not complete:
            upstream.drop()
        self._leave(failed=True)
        self._send(endpoint)
        return True

    def _failed(self, why: Refusal) -> None:
        """Try elsewhere, or give up."""
        endpoint = self._next_endpoint()
        self._leave(failed=True)
        if endpoint is None:
            self._refuse(why)
        else:
            self._send(endpoint)

    def _next_endpoint(self) -> Endpoint | None:
        """Return where to try again, if anywhere and if the budget allows it."""
        router = self._router
        if self._pool is None or self._endpoint is None or self._attempts >= router.settings.retries.attempts:
            return None
        self._tried = tried = [*(self._tried or ()), self._endpoint]
        endpoint = again(self.way, self._pool, tried, now=router.tick)
        if endpoint is None:
            return None
        if not router.budget.spend():
            router.measures.retries_denied += 1
            return None
        router.measures.retries += 1
        return endpoint

    def _cut(self, why: Refusal) -> None:
        """End an answer that had begun: a stream with one event that says why, anything else by cutting it off."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.drop()
        self._leave(failed=True)
        self._count("cut")
        client = self._client
        if self._tap is not None and self._chunked:
            event = error_event(why)
            client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
            self._end(close=True)
        else:
            self._end(close=True, linger=False)
            client.abort()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with *refusal*: nothing was sent to the client before."""
        if self._pool is None:
            self.way.order[0].measures.requests += 1
        else:
            self._count("server_error")
        close = refusal.close or self.request.close or self._router.closing
        about = b"x-gp-attempts: %d\r\n" % self._attempts
        if self._attempts:
            about = self._about()
        self._router.refused(refusal)
        self._client.send(answer(refusal, close=close, extra=about))
        self._end(close=close)

    # What the client and the sweep call.

    def abandon(self) -> None:
        """Stop: the client has left."""
        if self._done:
            return
        self._drop_upstream()
        if self._pool is not None:
            self._pool.measures.disconnects += 1
        self._leave(failed=False)
        self._count("cut")
        self._end(close=True, linger=False)

    def hold(self) -> None:
        """Let the upstream wait, because the client does not read."""
        if self._upstream is not None:
            self._upstream.hold()

    def go_on(self) -> None:
        """Let the upstream go on."""
        self._last_at = self._router.clock()  # the pause was the client's
        if self._upstream is not None:
            self._upstream.go_on()

    def sweep(self, now: float) -> None:
        """End what takes too long."""
        times = self._router.settings.timeouts
        if self._call is not None:
            if now - self._began > times.first_byte_s:
                self._call.give_up()
        elif self._endpoint is None:
            if now - self._began > times.wait_for_replica_s:
                self._router.unpark(self)
                self._refuse(refusals.NO_REPLICA)
        elif self._head is None:
            if self._sent_at and now - self._sent_at > times.first_byte_s:
                self._drop_upstream()
                self._failed(refusals.UPSTREAM_SLOW)
        elif now - self._last_at > times.between_bytes_s and not self._client.paused:
            self._cut(refusals.STALLED)
        elif now - self._began > times.total_s:
            self._cut(refusals.TOO_LONG)

    def stop(self) -> None:
        """End now: the router's grace is over."""
        if self._done:
            return
        self._router.unpark(self)
        if self._head is not None:
            self._cut(refusals.STOPPING)
        else:
            self._drop_upstream()
            self._leave(failed=False)
            self._refuse(refusals.STOPPING)

    # Ending.

    def _drop_upstream(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.leave()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.drop()

    def _complete(self) -> None:
        """End an answer that came whole."""
        failed = self._status in _FAILED
        status = self._status
        self._leave(failed=failed)
        self._count("ok" if status < _CLIENT_ERROR else "client_error" if status < _SERVER_ERROR else "server_error")
        if status < _CLIENT_ERROR:
            self._learn()
        self._end(close=self.request.close or self._router.closing)

    def _learn(self) -> None:
        """Count the tokens, and learn from what the engine said."""
        tokens = self._tap.tokens() if self._tap is not None else usage(self._tail)
        if self._prefill is not None:
            self._count_prefill(self._prefill.pool, tokens[0])
        if self._pool is not None:
            self._router.learn(self.request, self.way, self.wish, pool=self._pool, tokens=tokens)

    def _count_prefill(self, pool: Pool, prompt: int | None) -> None:
        """Count what the other pool did."""
        measures = pool.measures
        measures.requests += 1
        measures.outcomes["ok"] += 1
        measures.input_tokens.observe(self.request.length if prompt is None else prompt)

    def _count(self, outcome: str) -> None:
        """Count how it ended."""
        if self._pool is not None:
            self._pool.measures.requests += 1
            self._pool.measures.outcomes[outcome] += 1

    def _leave(self, *, failed: bool) -> None:
        """Give back the endpoint, and tell it how it did."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is None:
            return
        endpoint.end()
        endpoint.pool.in_flight -= 1
        if failed:
            endpoint.failed(self._router.tick)
        elif self._head is not None:
            endpoint.succeeded()

    def _release_prefill(self) -> None:
        if self._prefill is not None and not self._released:
            self._released = True
            self._prefill.end()
            self._prefill.pool.in_flight -= 1

    def _end(self, *, close: bool, linger: bool = True) -> None:
        """Give back what is left, and let the client go on."""
        self._done = True
        if self._prefill is not None:
            self._release_prefill()
        router = self._router
        router.held_bytes -= len(self.request.body)
        if router.parked:
            router.unpark(self)
        if router.tells:
            router.tell(self.request, self.way, f"{self._status or 'no'} answer, {self._attempts} attempts")
        if linger or not close:
            self._client.done(close=close)
        else:
            self._client.exchange = None
