"""The planner's HTTP API.

Rules of this file: bytes in, `wire` and the planner in between, bytes out; no `if` about budgets. Whatever goes
wrong is answered by its kind from the table of codes, in one shape, without a trace of how it is made.
"""

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import attrs
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gpadapters.answering import Answering, Refused, nobody
from gpadapters.http.codes import CODES
from gpadapters.http.openapi import document as openapi_document
from gpcore import wire
from gpcore.conditions import Condition
from gpcore.decisions import Rejected, explain
from gpcore.errors import ConfigError, InvalidError, MalformedError
from gpcore.events import Noted
from gpcore.ledger import Freeze
from gpcore.pools import Snapshot
from gpcore.ports import Planning
from gpcore.requests import ScaleRequest

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
KEEP_ALIVE_S = 10.0
MAX_LISTED = 1_000

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_KEY = "Idempotency-Key"
_STALE = "the cluster is not being followed at the moment"
_UNRECORDED = "the ledger is not read yet, or what is deployed is being put on record"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Conditions = Callable[[], Sequence[Condition]]
"""Gives what the planner runs without, as it is now."""


@attrs.frozen
class Waits:
    """How long to wait, in seconds: for a body, before answering `scaling`, and for replicas where a caller blocks."""

    body_s: float = 10.0
    answer_s: float = 3.0
    blocking_s: float = 1_800.0


_PATIENT = Waits()


@attrs.frozen
class Listen:
    """Where to listen. Nobody vouches for callers yet, so anything but this machine needs *insecure_no_auth*.

    With *probes_only* there is nothing to ask for, so everybody may connect: probes and metrics alone are served.
    """

    host: str = "127.0.0.1"
    port: int = attrs.field(default=8080)
    insecure_no_auth: bool = attrs.field(default=False, kw_only=True)
    probes_only: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        problems = []
        if not 0 <= self.port <= 65_535:  # noqa: PLR2004 - what a port is
            problems.append(f"port must be between 0 and 65535: {self.port}")
        if not (self.insecure_no_auth or self.probes_only or self.local):
            problems.append(
                f"{self.host} can be reached from other machines and callers are not authenticated: "
                "listen on 127.0.0.1, or say --insecure-no-auth"
            )
        if problems:
            raise ConfigError(problems)

    @property
    def local(self) -> bool:
        """Say whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return False


@contextlib.asynccontextmanager
async def serve(
    planner: Planning,
    listen: Listen,
    *,
    version: str = "0",
    metrics: Callable[[], bytes] = bytes,
    refused: Refused = nobody,
    conditions: Conditions = tuple,
    waits: Waits = _PATIENT,
    rehearsal: bool = False,
) -> AsyncIterator[str]:
    """Serve *planner* while the body runs; the address is what the body gets.

    In a *rehearsal* nothing is carried out, and the answers say so. `/readyz` and `/v1/conditions` tell the
    *conditions*.
    """
    if not listen.local and not listen.probes_only:
        log.warning("INSECURE: %s is open to other machines and nobody authenticates callers", listen.host)
    answering = Answering(planner, waits.answer_s, waits.blocking_s, rehearsal)
    api = _Api(planner, metrics, refused, conditions, waits.body_s, answering, wire.dumps(openapi_document(version)))
    runner = web.AppRunner(
        _application(api, _probes(api) if listen.probes_only else [*_asking(api), *_probes(api)]),
        access_log=None,
        auto_decompress=False,
        handler_cancellation=True,
        keepalive_timeout=KEEP_ALIVE_S,
        logger=_connections,
        lingering_time=1.0,
        max_headers=64,
        shutdown_timeout=5.0,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, listen.host, listen.port).start()
        host, port = runner.addresses[0][:2]
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        await runner.cleanup()


class _RefusedError(Exception):
    """A request that ends before the planner sees it, with the *kind* of its end."""

    def __init__(self, kind: str, problems: Sequence[str] = ()) -> None:
        super().__init__(kind)
        self.kind = kind
        self.problems = tuple(problems)


@attrs.frozen
class _Api:
    planner: Planning
    metrics: Callable[[], bytes]
    refused: Refused
    conditions: Conditions
    body_s: float
    answering: Answering
    openapi_bytes: bytes

    async def scale(self, request: web.Request) -> web.Response:
        asked = await self._asked(request)
        answer = await self.answering.answer(asked)
        if answer.document is None:
            raise _RefusedError(answer.kind)
        return _answer(answer.kind, answer.document)

    async def _asked(self, request: web.Request) -> ScaleRequest:
        """Return the request that the body, and the header that names it, hold."""
        return _named(wire.scale_request(await self._document(request)), request.headers.getall(_KEY, []))

    async def _document(self, request: web.Request) -> object:
        """Return the document that the body holds, read within its limits."""
        self._refuse_pages(request)
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise _RefusedError("encoding")
        charset = (request.charset or "utf-8").lower()
        if request.content_type != "application/json" or charset not in {"utf-8", "utf8"}:
            raise _RefusedError("media_type")
        if (request.content_length or 0) > MAX_BODY:
            raise _RefusedError("body_too_large")
        try:
            async with asyncio.timeout(self.body_s):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge as exc:
            raise _RefusedError("body_too_large") from exc
        except TimeoutError as exc:
            raise _RefusedError("body_timeout") from exc
        return wire.loads(body)

    def _refuse_pages(self, request: web.Request) -> None:
        if "Origin" in request.headers:  # a web page, perhaps one that renamed itself to this machine
            raise _RefusedError("bad_request", ["web pages may not ask"])

    async def decide(self, request: web.Request) -> web.Response:
        asked = await self._asked(request)
        await self.planner.refresh()
        decision = self.planner.preview(asked)
        kind = decision.reason.kind if isinstance(decision, Rejected) else "success"
        return _answer(kind, wire.decided_json(asked, decision))

    async def pools(self, _: web.Request) -> web.Response:
        return _json(wire.pools_json(self._snapshot()))

    async def budget(self, _: web.Request) -> web.Response:
        self._snapshot()
        return _json(wire.budget_json(self.planner.state))

    def _snapshot(self) -> Snapshot:
        if self.planner.state.snapshot is None:
            raise _RefusedError("not_ready")
        return self.planner.state.snapshot

    async def decisions(self, request: web.Request) -> web.Response:
        records = self.planner.decisions()[: _limit(request)]
        return _json({"decisions": [wire.decision_json(record) for record in records]})

    async def decision(self, request: web.Request) -> web.Response:
        record = self.planner.decision(request.match_info["id"])
        if record is None:
            raise _RefusedError("not_found", ["there is no such decision, or it is not remembered any more"])
        return _json(wire.decision_json(record))

    async def operations(self, request: web.Request) -> web.Response:
        limit = _limit(request)
        known = {record.id for record in self.planner.operations()} | {
            one.id for one in self.planner.state.ledger.ended
        }
        found = [document for key in known if (document := self._operation(key)) is not None]
        found.sort(key=lambda document: (document["began_at"], document["id"]), reverse=True)
        return _json({"operations": found[:limit]})

    async def operation(self, request: web.Request) -> web.Response:
        document = self._operation(request.match_info["id"])
        if document is None:
            raise _RefusedError("not_found", ["there is no such operation, or it is not remembered any more"])
        return _json(document)

    def _operation(self, key: str) -> wire.Json | None:
        """Return the operation *key*: under way, whoever began it; else as it is remembered."""
        under_way = self.planner.state.operations.get(key)
        if under_way is not None:
            return wire.under_way_json(under_way)
        record = self.planner.operation(key)
        ended = next((one for one in self.planner.state.ledger.ended if one.id == key), None)
        if record is not None:
            return wire.record_json(record, ended)
        return None if ended is None else wire.ended_json(ended)

    async def freeze(self, request: web.Request) -> web.Response:
        asked = wire.asked_freeze(await self._document(request))
        snapshot = self._snapshot()
        strange = [f"there is no pool {pool}" for pool in asked.pools if snapshot.pool(pool) is None]
        if strange:
            raise InvalidError(strange)
        freeze = asked.begun(f"f-{secrets.token_hex(6)}", wall=time.time())
        return _noted(freeze, await self.planner.freeze(freeze))

    async def thaw(self, request: web.Request) -> web.Response:
        self._refuse_pages(request)
        key, freezes = request.match_info["id"], self.planner.state.ledger.freezes
        freeze = next((one for one in freezes if one.id == key), None)
        if freeze is None:
            raise _RefusedError("not_found", ["there is no such freeze, or it has ended"])
        return _noted(freeze, await self.planner.thaw(key))

    async def freezes(self, _: web.Request) -> web.Response:
        wall = time.time()
        holding = [one for one in self.planner.state.ledger.freezes if one.until > wall]
        return _json({"freezes": [wire.freeze_json(one) for one in holding]})

    async def conditions_page(self, _: web.Request) -> web.Response:
        return _json({"conditions": [wire.condition_json(one) for one in self.conditions()]})

    async def healthz(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        state = self.planner.state
        if state.ready:
            return _json({"status": "ready", "conditions": [wire.condition_json(one) for one in self.conditions()]})
        problems = []  # a probe is no request that is refused
        if state.snapshot is not None:
            problems = [_STALE if state.stale else _UNRECORDED]
        return _problem("not_ready", problems)

    async def metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics(), headers={**_HEADERS, "Content-Type": _METRICS_TYPE})

    async def openapi(self, _: web.Request) -> web.Response:
        return web.Response(body=self.openapi_bytes, headers=_HEADERS, content_type="application/json")

    @web.middleware
    async def answer_faults(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer whatever is raised by its kind; what nobody foresaw is logged here and nowhere shown."""
        if "Upgrade" in request.headers:
            return self._refuse("bad_request", ["this connection is not upgraded to anything"])
        try:
            return await handler(request)
        except (_RefusedError, InvalidError, web.HTTPException) as exc:
            response = self._refuse(*_kind_and_problems(exc))
            if isinstance(exc, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = ", ".join(sorted(exc.allowed_methods))
            return response
        except Exception:
            log.exception("a request failed", extra={"gp_path": request.path[:256]})
            return self._refuse("internal")

    def _refuse(self, kind: str, problems: Sequence[str] = ()) -> web.Response:
        self.refused(kind, _message(kind, problems))
        return _problem(kind, problems)


def _application(api: _Api, routes: Sequence[web.RouteDef]) -> web.Application:
    app = web.Application(middlewares=[api.answer_faults], client_max_size=MAX_BODY)
    app.add_routes(routes)
    return app


def _asking(api: _Api) -> list[web.RouteDef]:
    return [
        web.post("/v1/scale", api.scale),
        web.post("/v1/decide", api.decide),
        web.get("/v1/pools", api.pools, allow_head=False),
        web.get("/v1/budget", api.budget, allow_head=False),
        web.get("/v1/decisions", api.decisions, allow_head=False),
        web.get("/v1/decisions/{id}", api.decision, allow_head=False),
        web.get("/v1/operations", api.operations, allow_head=False),
        web.get("/v1/operations/{id}", api.operation, allow_head=False),
        web.get("/v1/freezes", api.freezes, allow_head=False),
        web.post("/v1/freezes", api.freeze),
        web.delete("/v1/freezes/{id}", api.thaw),
        web.get("/v1/conditions", api.conditions_page, allow_head=False),
        web.get("/openapi.json", api.openapi, allow_head=False),
    ]


def _probes(api: _Api) -> list[web.RouteDef]:
    return [
        web.get("/healthz", api.healthz, allow_head=False),
        web.get("/readyz", api.readyz, allow_head=False),
        web.get("/metrics", api.metrics_page, allow_head=False),
    ]


class _Calm(logging.Filter):
    """Make one line, of no alarm, of what aiohttp says of a client that does not speak HTTP."""

    def filter(self, record: logging.LogRecord) -> bool:
        fault = record.exc_info[1] if record.exc_info else None
        if not isinstance(fault, HttpProcessingError):
            return True
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args = "what came is not HTTP: %s", (ascii(fault.message)[:_SHOWN],)
        record.exc_info = record.exc_text = None
        return _connections.isEnabledFor(logging.INFO)


_SHOWN = 200
_connections = log.getChild("connections")
_connections.addFilter(_Calm())

_CLOSING = {"body_timeout", "body_too_large", "bad_request", "stopping"}
"""After these, what is left on the connection is not worth reading."""


def _kind_and_problems(fault: _RefusedError | InvalidError | web.HTTPException) -> tuple[str, Sequence[str]]:
    match fault:
        case _RefusedError():
            return fault.kind, fault.problems
        case MalformedError():
            return "malformed", fault.problems
        case InvalidError():
            return "invalid", fault.problems
        case web.HTTPMethodNotAllowed():
            return "method_not_allowed", ()
        case web.HTTPNotFound():
            return "not_found", ()
        case _:
            return "bad_request", (fault.reason,)


def _named(asked: ScaleRequest, keys: Sequence[str]) -> ScaleRequest:
    """Return *asked* with the id that the header gives, in quotes or not; it may not contradict the body's."""
    names = {key.strip().removeprefix('"').removesuffix('"') for key in keys}
    if not names:
        return asked
    if asked.request_id is not None:
        names.add(asked.request_id)
    if len(names) > 1:
        raise InvalidError([f"{_KEY} and request_id must be the same, and given once"])
    try:
        return attrs.evolve(asked, request_id=names.pop())
    except InvalidError as exc:
        raise InvalidError([f"{_KEY}: {problem}" for problem in exc.problems]) from None


def _noted(freeze: Freeze, answer: Noted | Rejected) -> web.Response:
    """Return *freeze*, or why its beginning or its end is not on record."""
    if isinstance(answer, Noted):
        return _json(wire.freeze_json(freeze))
    kind, message = answer.reason.kind, explain(answer)
    return _answer(kind, {"message": message, "reason": wire.reason_json(answer.reason), "problems": [message]})


def _limit(request: web.Request) -> int:
    """Return how many records are asked for."""
    text = request.query.get("limit", "100")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LISTED)) and 1 <= int(text) <= MAX_LISTED):
        raise InvalidError([f"limit must be an integer between 1 and {MAX_LISTED}: {text[:80]!a}"])
    return int(text)


def _message(kind: str, problems: Sequence[str]) -> str:
    return "; ".join(problems) or CODES[kind].meaning


def _problem(kind: str, problems: Sequence[str]) -> web.Response:
    """Return the answer to what ends as *kind* before the planner sees it."""
    body = {"message": _message(kind, problems), "reason": {"kind": kind}, "problems": list(problems)}
    response = _answer(kind, {"status": CODES[kind].status, **body})
    if kind in _CLOSING:
        response.force_close()
    return response


def _answer(kind: str, body: wire.Json) -> web.Response:
    """Return *body* with the code of *kind*, and its status where the body does not say success."""
    code = CODES[kind]
    response = _json(body if kind == "success" else {**body, "status": code.status}, status=code.http)
    if code.retry_s is not None:
        response.headers["Retry-After"] = str(code.retry_s)
    return response


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=wire.dumps(body), status=status, headers=_HEADERS, content_type="application/json")
