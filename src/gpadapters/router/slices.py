"""Endpoints of pools from Kubernetes: the EndpointSlices of each pool's Service.

Rules of this file: reading a list is pure; the lists are asked for again and again, from the API server's own cache,
because a list that was missed cannot be told from one that never came while a watch can be; what cannot be read leaves
the last endpoints in place. The pool's breaker notices a dead endpoint sooner than Kubernetes says so.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import aiohttp
import attrs
import msgspec
from yarl import URL

from gpadapters.router.fleet import Address, Endpoints
from gpcore.errors import ConfigError

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_TIMEOUT_S = 5.0
_MAX_BYTES = 16 << 20
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_IDENTITY = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NOT_FOUND = 404
_OLD = "v1beta1"


@attrs.frozen
class Service:
    """Name a Service, and which of its ports if it has several."""

    namespace: str
    name: str
    port: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Service":
        """Read `NAMESPACE/NAME` or `NAMESPACE/NAME:PORT`."""
        whole, _, port = text.partition(":")
        namespace, _, name = whole.partition("/")
        if not all(_NAME.fullmatch(part) for part in (namespace, name, port or "none")):
            raise ConfigError([f"a Service is NAMESPACE/NAME[:PORT]: {ascii(text)[:200]}"])
        return cls(namespace, name, port or None)


@attrs.frozen
class Access:
    """Say how the API server is reached: where, and with which files, read again because they are renewed."""

    url: str
    token: Path | None = None
    authority: Path | None = None

    @classmethod
    def inside(cls, environment: Mapping[str, str], identity: Path = _IDENTITY) -> "Access":
        """Return what a pod of the cluster has."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise ConfigError(["KUBERNETES_SERVICE_HOST is not set: EndpointSlices can be read inside a cluster only"])
        shown = f"[{host}]" if ":" in host else host
        return cls(f"https://{shown}:{port}", identity / "token", identity / "ca.crt")


class _Port(msgspec.Struct):
    name: str | None = None
    port: int | None = None


class _Conditions(msgspec.Struct):
    ready: bool | None = None
    terminating: bool | None = None


class _Endpoint(msgspec.Struct):
    addresses: list[str]
    conditions: _Conditions = msgspec.field(default_factory=_Conditions)


class _Slice(msgspec.Struct):
    endpoints: list[_Endpoint] | None = None
    ports: list[_Port] | None = None


class _List(msgspec.Struct):
    items: list[_Slice]


def addresses(data: bytes, port: str | None) -> tuple[Address, ...]:
    """Return the ready endpoints of a list of EndpointSlices; of several ports the one named *port*, or the first."""
    found: list[Address] = []
    for one in msgspec.json.decode(data, type=_List).items:
        number = _port(one.ports or (), port)
        ready = (endpoint for endpoint in one.endpoints or () if _ready(endpoint.conditions))
        if number is not None:
            found.extend(Address(endpoint.addresses[0], number) for endpoint in ready if endpoint.addresses)
    return tuple(sorted(set(found), key=lambda address: (address.host, address.port)))


def _port(ports: Iterable[_Port], name: str | None) -> int | None:
    return next((one.port for one in ports if name is None or one.name == name), None)


def _ready(conditions: _Conditions) -> bool:
    """Say what Kubernetes means: unknown is ready, and one that is ending takes no new requests."""
    return conditions.ready is not False and not conditions.terminating


class FromSlices:
    """Follow the EndpointSlices of one Service for each pool."""

    def __init__(self, services: Mapping[str, Service], access: Access, *, every_s: float = _EVERY_S) -> None:
        """Ask nothing yet; *services* are by the Dynamo namespace of their pool."""
        self._services = services
        self._access = access
        self._every_s = every_s
        self._version = "v1"

    async def endpoints(self) -> AsyncGenerator[Endpoints, None]:
        """Yield the endpoints of all pools, again whenever they change."""
        last: Endpoints | None = None
        silent = False
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, connector=await self._connector()) as session:
            while True:
                try:
                    found = {pool: await self._ask(session, service) for pool, service in self._services.items()}
                except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError) as error:
                    if not silent:
                        log.warning("EndpointSlices cannot be read, the last ones stay: %s", error)
                    silent = True
                else:
                    silent = False
                    if found != last:
                        yield found
                    last = found
                await asyncio.sleep(self._every_s)

    async def _ask(self, session: aiohttp.ClientSession, service: Service) -> tuple[Address, ...]:
        """Return the endpoints of *service*; clusters before 1.21 have another version of the same."""
        selector = quote(f"kubernetes.io/service-name={service.name}", safe="")
        try:
            return await self._list(session, service, selector)
        except aiohttp.ClientResponseError as error:
            if error.status != _NOT_FOUND or self._version == _OLD:
                raise
        self._version = _OLD
        return await self._list(session, service, selector)

    async def _list(self, session: aiohttp.ClientSession, service: Service, selector: str) -> tuple[Address, ...]:
        path = f"/apis/discovery.k8s.io/{self._version}/namespaces/{service.namespace}/endpointslices"
        url = URL(f"{self._access.url}{path}?labelSelector={selector}&resourceVersion=0", encoded=True)
        async with session.get(url, headers=await self._headers(), allow_redirects=False) as answer:
            answer.raise_for_status()
            return addresses(await answer.content.read(_MAX_BYTES), service.port)

    async def _headers(self) -> dict[str, str]:
        if self._access.token is None:
            return {}
        token = await asyncio.to_thread(self._access.token.read_text)
        return {"authorization": f"Bearer {token.strip()}"}

    async def _connector(self) -> aiohttp.TCPConnector:
        if self._access.authority is None:
            return aiohttp.TCPConnector()
        context = await asyncio.to_thread(ssl.create_default_context, cafile=str(self._access.authority))
        return aiohttp.TCPConnector(ssl=context)
