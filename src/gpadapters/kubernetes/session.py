"""Requests to one API server, with the official client's configuration, credentials and TLS.

Rules of this file: bytes in, bytes out; no request is sent twice, but for one that was refused for its credentials
and so not executed. What the network does wrong is a `LostError`, whose outcome nobody knows.
"""

import asyncio
import contextlib
import io
import os
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import attrs
from yarl import URL

from gpadapters.kubernetes.official import Configuration, load_incluster_config, load_kube_config
from gpcore.errors import ConfigError, PortError

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"

_CONNECT_S = 5.0
_KEPT_S = 75.0  # the server keeps idle connections for 90 s; whoever closes first cannot be surprised
_LINGER_S = 5.0  # at most, for TLS handshakes that were given up; asyncio needs a few turns to end each
_TURN_S = 0.001
_READ_BYTES = 2**18
_LARGE = 2**20
_MAX_LINE = 2**24  # etcd holds objects of 1.5 MB
_LONGEST_WAIT_S = 10.0
_DIGITS = 10  # more of them is no number of seconds
_OK = 200
_UNAUTHORIZED = 401

Load = Callable[[], Awaitable[Any]]
"""Gives a new `Configuration`, with credentials as they are now."""


class LostError(PortError):
    """No answer came; the request may have been executed or may still be."""


@attrs.frozen
class Answer:
    """What the API server said."""

    status: int
    body: bytes
    retry_after: str | None = None

    @property
    def wait_s(self) -> float:
        """Return the seconds that the server asks to wait before the next request: 0 to 10, whatever it says."""
        asked = self.retry_after or ""
        return min(int(asked), _LONGEST_WAIT_S) if asked.isdecimal() and len(asked) < _DIGITS else 0.0


async def load_configuration(kubeconfig: Path | None = None, context: str | None = None) -> Any:  # noqa: ANN401
    """Return the official client's configuration: of a pod, or of a kubeconfig; ConfigError where it is unusable."""
    configuration = Configuration()
    try:
        if kubeconfig is None and context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            load_incluster_config(client_configuration=configuration)
        else:
            path = None if kubeconfig is None else str(kubeconfig)
            await load_kube_config(path, context, client_configuration=configuration, persist_config=False)
    except Exception as fault:  # a file may be wrong in any way, and the loaders raise what comes up
        where = "the default kubeconfig" if kubeconfig is None else str(kubeconfig)
        raise ConfigError([f"{where} is not usable: {fault}"]) from fault
    problems = list(_insecure(configuration))
    if problems:
        raise ConfigError(problems)
    return configuration


def _insecure(configuration: Any) -> list[str]:  # noqa: ANN401
    problems = []
    if not configuration.verify_ssl:
        problems.append("insecure-skip-tls-verify is set: whoever answers would be believed and given the credentials")
    url = urlsplit(configuration.host)
    if url.scheme != "https" and not _loopback(url.hostname or ""):
        problems.append(f"the server must be an https URL, as it is not on this machine: {configuration.host}")
    return problems


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Session:
    """Kept connections to one API server. Use it as an asynchronous context manager."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._renewing = asyncio.Lock()
        self._renewals = 0
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    async def __aenter__(self) -> Self:
        """Read the configuration; nothing is connected yet."""
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection, and those too that nobody waits for any more."""
        await self._http.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while any(one.fileno() >= 0 for one in self._sockets):  # noqa: ASYNC110 - a socket tells nobody
                    await asyncio.sleep(_TURN_S)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str = JSON_PATCH,
        timeout_s: float = 30.0,
    ) -> Answer:
        """Send one request and return the answer, whatever its status; LostError where none came."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        headers = {"Content-Type": content_type} if body is not None else {}
        async with self._responding(method, path, headers, body, timeout=timeout) as response:
            return Answer(response.status, await response.read(), response.headers.get("Retry-After"))

    @contextlib.asynccontextmanager
    async def lines(self, path: str, *, timeout_s: float) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """Open a stream; give the answer without its body, and the body's lines.

        The server ends them, or *timeout_s* do.
        """
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        async with self._responding("GET", path, {}, None, timeout=timeout) as response:
            refused = response.status != _OK
            yield Answer(response.status, await response.read() if refused else b""), _lines(response.content)

    @contextlib.asynccontextmanager
    async def _responding(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        **options: Any,  # noqa: ANN401
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        renewals = self._renewals
        try:
            for final in (False, True):
                credentials = await self._credentials()
                url = URL(self._host + path, encoded=True)
                asked = {"headers": {**credentials, **headers}, "allow_redirects": False, **self._route, **options}
                data = io.BytesIO(body) if body is not None and len(body) > _LARGE else body  # which goes in pieces
                async with self._http.request(method, url, data=data, **asked) as response:
                    if final or response.status != _UNAUTHORIZED:
                        yield response
                        return
                await self._renew(renewals)
        except aiohttp.ClientSSLError as fault:
            await self._renew(renewals)  # certificates are rotated too
            raise _lost(fault) from fault
        except (aiohttp.ClientError, TimeoutError, OSError) as fault:
            raise _lost(fault) from fault

    async def _credentials(self) -> dict[str, str]:
        key = await self._configuration.get_api_key_with_prefix("BearerToken")
        return {"Authorization": key.strip()} if key else {}

    async def _renew(self, renewals: int) -> None:
        """Read the configuration again, unless somebody has done so since there were *renewals*."""
        async with self._renewing:
            if self._renewals != renewals:
                return
            before = self._http
            try:
                await self._open()
            except ConfigError as fault:
                raise LostError(f"the credentials cannot be read again: {fault}") from fault
            self._renewals += 1
            await before.close()

    async def _open(self) -> None:
        configuration = await self._load()
        self._configuration = configuration
        self._host = configuration.host.rstrip("/")
        self._route = _route(configuration)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                ssl=_tls(configuration),
                keepalive_timeout=_KEPT_S,
                socket_factory=self._socket,
            ),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "gpcore"},
            read_bufsize=_READ_BYTES,
        )

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Make a socket, and remember it for as long as it is in use."""
        made = socket.socket(*address[:3])
        self._sockets.add(made)
        return made


def path_of(base: str, **query: str | int) -> str:
    """Return *base* with a query string."""
    return f"{base}?{urlencode(query)}" if query else base


def _lost(fault: BaseException) -> LostError:
    return LostError(f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__)


def _tls(configuration: Any) -> ssl.SSLContext:  # noqa: ANN401
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if configuration.disable_strict_ssl_verification:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _route(configuration: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return how to reach the host: through the configured proxy, else the environment's, under the configured name."""
    url = urlsplit(configuration.host)
    proxy = configuration.proxy
    if proxy is None and not _loopback(url.hostname or "") and not proxy_bypass(url.netloc):
        proxy = getproxies().get(url.scheme)
    route = {
        "proxy": proxy,
        "proxy_headers": configuration.proxy_headers,
        "server_hostname": configuration.tls_server_name,
    }
    return {name: value for name, value in route.items() if value}


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield each whole line; what follows the last one is half a line, and dropped."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > _MAX_LINE:
            raise ValueError(f"a line of more than {_MAX_LINE} bytes")
