"""What all connections share: the routing table, the pools, the counters, and one sweep over all deadlines.

Rules of this file: one loop owns it; the table and the settings are replaced as whole values, never changed; nothing
here waits for anything but a connection.
"""

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec

from gpadapters.router import refusals
from gpadapters.router.asking import Ask, Defaults, Wish, read
from gpadapters.router.asking import wish as wished
from gpadapters.router.choose import Way, Ways
from gpadapters.router.client import Client, Request
from gpadapters.router.counting import Count
from gpadapters.router.fleet import Asker, Condition, Connection, Endpoint, Endpoints, Pool, RetryBudget
from gpadapters.router.forward import Exchange
from gpadapters.router.measures import PoolMeasures, RouterMeasures
from gpadapters.router.refusals import Refusal, answer, whole
from gpadapters.router.settings import Settings
from gpadapters.router.shared import Parked
from gpadapters.router.upstream import Upstream
from gpcore.lengths import OUTPUT, PROMPT, Lengths, context_length
from gpcore.routing import RoutingTable

log = logging.getLogger(__name__)

_FORWARDED = frozenset({b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings"})
_MODELS = b"/v1/models"
_RATES = 4096


class Router:
    """Serve one routing table."""

    def __init__(
        self,
        table: RoutingTable,
        settings: Settings,
        *,
        models: Iterable[str] = (),
        defaults: Defaults | None = None,
        router_id: str = "0",
        counter: Count | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Begin with pools that have no endpoint; *models* empty means that any model is served."""
        self.settings = settings
        self.clock = clock
        self.tick = clock()
        self.closing = False
        self.ready = True
        self.tells = log.isEnabledFor(logging.DEBUG)
        self.models = frozenset(models)
        self.measures = RouterMeasures()
        self.budget = RetryBudget(settings.retries)
        self.held_bytes = 0
        self._prompts = Lengths(PROMPT)
        self._outputs = Lengths(OUTPUT)
        self._written: dict[tuple[str, bytes], int] = {}
        self._counter = counter
        self._rates: dict[tuple[str, bytes], float] = {}
        self._taught: dict[tuple[str, bytes], tuple[int, int]] = {}
        self.pools: dict[tuple[str, str], Pool] = {}
        self.clients: set[Client] = set()
        self.parked: dict[Parked, None] = {}
        self._defaults = defaults or Defaults()
        self.plain_wish = self._defaults.wish()
        self._router_id = router_id
        self._endpoints: Endpoints = {}
        self._by_peer: Counter[str] = Counter()
        self._connecting: set[asyncio.Task[None]] = set()
        self.ways = self._ways(table)

    # Replacing what is known.

    def serve(self, table: RoutingTable) -> None:
        """Route by *table* from the next request on."""
        self.ways = self._ways(table)
        self.changed()

    def serve_from(self, endpoints: Endpoints) -> None:
        """Have these endpoints from now on; what is under way on others goes on."""
        self._endpoints = endpoints
        for pool in self.pools.values():
            self._place(pool)
        self.changed()

    def planned(self, conditions: Mapping[tuple[str, str], Condition]) -> None:
        """Leave out the pools that the planner says cannot serve; a pool that it does not know serves."""
        for key, pool in self.pools.items():
            pool.planned = conditions.get(key, Condition.SERVING)
        self.changed()

    def changed(self) -> None:
        """Choose again for every request that waits for a replica."""
        waiting = list(self.parked)
        self.parked.clear()
        for exchange in waiting:
            exchange.choose()

    def _ways(self, table: RoutingTable) -> Ways:
        for selection in table.selections:
            for one in selection.pools:
                key = (selection.phase.value, one.namespace)
                if key not in self.pools:
                    self.pools[key] = self._pool(*key)
        return Ways(table, self.pools)

    def _pool(self, role: str, namespace: str) -> Pool:
        measures = PoolMeasures(namespace, "backend" if role == "agg" else role, self._router_id)
        rules = self.settings
        pool = Pool(namespace, role, measures, admission=rules.admission, breaking=rules.breaking)
        self._place(pool)
        return pool

    def _place(self, pool: Pool) -> None:
        for endpoint in pool.serve_from(self._endpoints.get(pool.name, ())):
            while endpoint.idle:
                endpoint.idle.pop().drop()

    # Requests.

    def begin(self, client: Client, request: Request) -> None:
        """Answer *request* or send it on its way."""
        self.measures.requests += 1
        target = request.target
        if target not in _FORWARDED:
            if b"?" in target:
                request.target = target.partition(b"?")[0]
            if request.target not in _FORWARDED:
                self._answer(client, request)
                return
        way = self._decide(client, request)
        if isinstance(way, Refusal):
            self.held_bytes -= len(request.body)
            self._say(client, request, way)

    def _decide(self, client: Client, request: Request) -> Refusal | None:
        """Choose the way of *request* and begin it."""
        ask = self._read(request)
        if isinstance(ask, Refusal):
            return ask
        plain = self.plain_wish
        head = request.head
        quiet = head.ttft is None and head.tpot is None and ask.nvext is None and ask.extra_args is None
        wanted = plain if quiet else wished(ask, head.ttft, head.tpot, defaults=self._defaults)
        size = len(request.body)
        length = None if self._counter is None else self._counter(request.body)
        if length is None:
            rate = self._rates.get((ask.model, request.target))
            length = round(size * (self._rate(request) if rate is None else rate))
        request.length = length
        ways = self.ways
        prefill = None if ways.prefill is None else ways.for_prefill(wanted, length)
        if isinstance(prefill, Refusal):
            return prefill
        if self.settings.half_output:
            length = self._context(request)
        way = ways.for_plain(plain, length) if quiet else ways.for_serving(wanted, length)
        if isinstance(way, Refusal):
            return way
        self.budget.request()
        client.exchange = exchange = Exchange(self, client, request, way=way, wish=wanted)
        exchange.begin(prefill)
        return None

    def _context(self, request: Request) -> int:
        """Return the length for the serving grid: with half of what its like wrote, where one pool only decodes."""
        if self.ways.prefill is None:
            return request.length
        return context_length(request.length, self._outputs.estimate(request.model, request.target.decode()))

    def _read(self, request: Request) -> Ask | Refusal:
        """Return what *request* asks, if it may."""
        if request.method != b"POST":
            return refusals.not_allowed("POST")
        if not request.head.json:
            return refusals.MEDIA_TYPE
        ask = read(request.body)
        if isinstance(ask, Refusal):
            return ask
        if self.models and ask.model not in self.models:
            return refusals.unknown_model(ask.model)
        request.model = ask.model
        return ask

    def _rate(self, request: Request) -> float:
        """Return the tokens of a byte, as known since the last sweep."""
        rate = self._prompts.rate(request.model, request.target.decode())
        known = rate.tokens / rate.units
        if len(self._rates) < _RATES:
            self._rates[request.model, request.target] = known
        return known

    def _answer(self, client: Client, request: Request) -> None:
        """Answer what the router knows itself."""
        self.held_bytes -= len(request.body)
        if request.target != _MODELS and not request.target.startswith(_MODELS + b"/"):
            self._say(client, request, refusals.NOT_FOUND)
        elif request.method != b"GET":
            self._say(client, request, refusals.not_allowed("GET"))
        elif request.target == _MODELS:
            listed = {"object": "list", "data": [self._model(name) for name in sorted(self.models)]}
            self._tell(client, request, whole(200, msgspec.json.encode(listed), close=self._close(request)))
        else:
            self._tell_one(client, request, request.target[len(_MODELS) + 1 :].decode("ascii", "replace"))

    def _tell_one(self, client: Client, request: Request, name: str) -> None:
        if name in self.models:
            self._tell(client, request, whole(200, msgspec.json.encode(self._model(name)), close=self._close(request)))
        else:
            self._say(client, request, refusals.unknown_model(name))

    def _model(self, name: str) -> dict[str, object]:
        """Describe a model; it is cold when no pool serves now and one may be scaled up."""
        return {"id": name, "object": "model", "created": 0, "owned_by": "gpcore", "cold": self.cold}

    @property
    def cold(self) -> bool:
        """Say whether no pool can serve at the moment."""
        serving = self.ways.serving.phase.value
        pools = [pool for (role, _), pool in self.pools.items() if role == serving]
        return all(pool.condition(self.tick) is not Condition.SERVING for pool in pools)

    def _close(self, request: Request) -> bool:
        return request.close or self.closing

    def _say(self, client: Client, request: Request, refusal: Refusal) -> None:
        self.refused(refusal)
        close = refusal.close or self._close(request)
        client.send(answer(refusal, close=close))
        client.done(close=close)

    def _tell(self, client: Client, request: Request, data: bytes) -> None:
        client.send(data)
        client.done(close=self._close(request))

    def learn(
        self, request: Request, way: Way, wish: Wish, *, pool: Pool, tokens: tuple[int | None, int | None]
    ) -> None:
        """Count the tokens of an answer; what the engine counted corrects what was guessed."""
        prompt, completion = tokens
        measures = pool.measures
        if completion is not None:
            measures.output_tokens.observe(completion)
            if self.settings.half_output:
                self._written[request.model, request.target] = completion
        if prompt is None:
            measures.input_tokens.observe(request.length)
            return
        measures.input_tokens.observe(prompt)
        if prompt == request.length:
            return
        self._taught[request.model, request.target] = (len(request.body), prompt)
        if self.settings.half_output:
            return  # where it should have gone depends on what nobody knew
        ways = self.ways
        exact = ways.for_plain(wish, prompt) if wish is self.plain_wish else ways.for_serving(wish, prompt)
        if isinstance(exact, Way) and exact.order[0] is not way.order[0]:
            measures.misroutes += 1

    def tell(self, request: Request, way: Way, what: str) -> None:
        """Log one request; asked for at debug only, because a line costs as much as a request."""
        pool = way.order[0].name
        log.debug(
            "%s %s: %s tokens, grid's pool %s, %s", request.target.decode(), request.model, request.length, pool, what
        )

    # Waiting for a replica.

    def park(self, waiting: Parked) -> bool:
        """Let *waiting* wait until the pools change, if there is room."""
        if len(self.parked) >= self.settings.limits.waiting:
            return False
        self.parked[waiting] = None
        return True

    def unpark(self, waiting: Parked) -> None:
        """Let it wait no longer."""
        self.parked.pop(waiting, None)

    # Connections of clients.

    def welcome(self, client: Client) -> bool:
        """Say whether one more connection may come in."""
        self.measures.connections += 1
        limits = self.settings.limits
        self.clients.add(client)
        if limits.connections_per_client is not None:
            self._by_peer[client.peer] += 1
            if self._by_peer[client.peer] > limits.connections_per_client:
                return False
        return len(self.clients) <= limits.connections

    def farewell(self, client: Client) -> None:
        """Forget a connection."""
        self.clients.discard(client)
        if self._by_peer:
            self._by_peer[client.peer] -= 1
            if self._by_peer[client.peer] <= 0:
                del self._by_peer[client.peer]

    def refused(self, refusal: Refusal) -> None:
        """Count an answer of the router itself."""
        counts = self.measures.refused
        counts[refusal.status] = counts.get(refusal.status, 0) + 1

    # Connections to endpoints.

    def connection(self, endpoint: Endpoint) -> Connection | None:
        """Return a kept connection to *endpoint*, the one that was used last."""
        idle = endpoint.idle
        while idle:
            connection = idle.pop()
            if connection.open:
                return connection
        return None

    def connect(self, endpoint: Endpoint, asker: Asker) -> None:
        """Make a connection to *endpoint* for *asker*."""
        task = asyncio.get_running_loop().create_task(self._connect(endpoint, asker))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, endpoint: Endpoint, asker: Asker) -> None:
        loop = asyncio.get_running_loop()
        address = endpoint.address
        try:
            async with asyncio.timeout(self.settings.timeouts.connect_s):
                transport, upstream = await loop.create_connection(
                    lambda: Upstream(self, endpoint), address.host, address.port
                )
        except (OSError, TimeoutError):
            asker.lost(refusals.UPSTREAM_BAD)
            return
        no_delay(transport)
        asker.connected(upstream)

    def keep(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        endpoint = connection.endpoint
        if endpoint.removed or self.closing or len(endpoint.idle) >= self.settings.limits.idle_per_endpoint:
            connection.drop()
        else:  # one that is closing already is not taken from there
            connection.reused = True
            connection.idle_since = self.tick
            endpoint.idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """Forget a kept connection that its endpoint closed."""
        if connection in connection.endpoint.idle:
            connection.endpoint.idle.remove(connection)

    # Time.

    def sweep(self) -> None:
        """Look at every deadline."""
        self.tick = now = self.clock()
        for client in list(self.clients):
            client.sweep(now)
        oldest = now - self.settings.timeouts.upstream_idle_s
        for pool in self.pools.values():
            for endpoint in pool.endpoints:
                while endpoint.idle and endpoint.idle[0].idle_since < oldest:
                    endpoint.idle.pop(0).drop()
        if self._taught or self._written:
            self._fold()
        if self.parked:
            self.changed()

    def _fold(self) -> None:
        """Learn the last answer of each model and route: one a sweep teaches as well as all of them, for less."""
        for (model, target), (size, tokens) in self._taught.items():
            self._prompts = self._prompts.learned(model, target.decode(), units=size, tokens=tokens)
        for (model, target), tokens in self._written.items():
            self._outputs = self._outputs.learned(model, target.decode(), tokens=tokens)
        self._written.clear()
        self._taught.clear()
        self._rates.clear()

    def stop(self) -> None:
        """End everything that is under way, and drop every kept connection."""
        for client in list(self.clients):
            if client.exchange is not None:
                client.exchange.stop()
            client.close()
        for task in self._connecting:
            task.cancel()
        for pool in self.pools.values():
            for endpoint in pool.endpoints:
                while endpoint.idle:
                    endpoint.idle.pop().drop()

    @property
    def under_way(self) -> int:
        """Return how many requests are being answered."""
        return sum(client.exchange is not None for client in self.clients)


def no_delay(transport: asyncio.BaseTransport) -> None:
    """Send every byte at once: Nagle's algorithm against delayed acknowledgements costs 40 ms a stream."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
