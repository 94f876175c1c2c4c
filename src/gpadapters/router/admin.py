"""Health, readiness, metrics and the pools as they are, on a port of their own.

Rules of this file: reading only; nothing here changes what the router does.
"""

from collections.abc import Iterator

from aiohttp import web

from gpadapters.router.measures import escaped, header, pool_lines, router_lines
from gpadapters.router.service import Router

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def application(router: Router) -> web.Application:
    """Return what answers on the admin port."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if router.ready else web.Response(text="stopping\n", status=503)

    async def metrics(_: web.Request) -> web.Response:
        body = "\n".join(lines(router)) + "\n"
        return web.Response(body=body.encode(), headers={"content-type": _TEXT})

    async def pools(_: web.Request) -> web.Response:
        return web.json_response({"pools": [_pool(router, key) for key in router.pools]})

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
            web.get("/pools", pools),
        ]
    )
    return app


def lines(router: Router) -> Iterator[str]:
    """Yield everything that is measured."""
    yield from router_lines(router.measures)
    yield from pool_lines(pool.measures for pool in router.pools.values())
    for name, about, value in (
        ("gp_router_clients", "Connections of clients now.", len(router.clients)),
        ("gp_router_waiting", "Requests that wait for a first replica.", len(router.parked)),
        ("gp_router_held_bytes", "Bytes of requests that are held.", router.held_bytes),
        ("gp_router_ready", "Whether new requests are welcome.", int(router.ready)),
    ):
        yield from header(name, "gauge", about)
        yield f"{name} {value}"
    yield from _of_pools(router)


def _of_pools(router: Router) -> Iterator[str]:
    now = router.tick
    pools = router.pools.values()
    yield from header("gp_router_in_flight", "gauge", "Requests under way in a pool.")
    yield from (f"gp_router_in_flight{{{pool.measures.labels}}} {pool.in_flight}" for pool in pools)
    yield from header("gp_router_endpoints", "gauge", "Endpoints of a pool.")
    yield from (f"gp_router_endpoints{{{pool.measures.labels}}} {len(pool.endpoints)}" for pool in pools)
    yield from header("gp_router_pool_condition", "gauge", "The condition that a pool is in.")
    for pool in pools:
        yield f'gp_router_pool_condition{{{pool.measures.labels},condition="{pool.condition(now).value}"}} 1'
    for name, about in (
        ("gp_router_breaker_open", "Whether an endpoint is left alone: 1, or 0.5 while it is tried."),
        ("gp_router_ejections_total", "How often an endpoint was left alone."),
        ("gp_router_outstanding", "Requests under way at an endpoint."),
    ):
        yield from header(name, "counter" if name.endswith("_total") else "gauge", about)
        for pool in pools:
            for endpoint in pool.endpoints:
                values = (_OPEN[endpoint.state], endpoint.ejections, endpoint.outstanding)
                value = dict(zip(_OF_ENDPOINT, values, strict=True))[name]
                yield f'{name}{{{pool.measures.labels},endpoint="{escaped(str(endpoint.address))}"}} {value}'


_OPEN = {"closed": 0, "half-open": 0.5, "open": 1}
_OF_ENDPOINT = ("gp_router_breaker_open", "gp_router_ejections_total", "gp_router_outstanding")


def _pool(router: Router, key: tuple[str, str]) -> dict[str, object]:
    pool = router.pools[key]
    return {
        "role": pool.role,
        "namespace": pool.name,
        "condition": pool.condition(router.tick).value,
        "in_flight": pool.in_flight,
        "endpoints": [
            {"address": str(one.address), "outstanding": one.outstanding, "breaker": one.state}
            for one in pool.endpoints
        ],
    }
