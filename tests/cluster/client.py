"""A small synchronous Kubernetes client of raw dicts, for tests and as the bare reference of benchmarks.

Rules of this file: no model classes; one kept connection a thread; no request is ever sent twice (a connection found
closed *before* sending is replaced, anything later is the caller's to judge).
"""

import base64
import contextlib
import http.client
import json
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import attrs

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"

Json = dict[str, Any]

_CLUSTER_SCOPED = frozenset({"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace"})


class ApiError(Exception):
    """The API server answered with an error status."""

    def __init__(self, status: int, body: Json) -> None:
        """Keep the HTTP *status* and the decoded Status object."""
        super().__init__(f"{status} {body.get('reason', '')}: {body.get('message', body)}")
        self.status = status
        self.body = body


@attrs.frozen
class Access:
    """Where an API server listens and how to prove who one is."""

    url: str
    ca: str = attrs.field(repr=False)
    token: str = attrs.field(repr=False)

    @classmethod
    def of_kubeconfig(cls, path: Path) -> Self:
        """Read back what `kubeconfig` wrote."""
        config = json.loads(path.read_text())
        cluster = config["clusters"][0]["cluster"]
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        return cls(url=cluster["server"], ca=ca, token=config["users"][0]["user"]["token"])

    def kubeconfig(self, *, namespace: str = "default") -> Json:
        """Give a kubeconfig with one context; JSON is YAML, so any client reads it."""
        ca = base64.b64encode(self.ca.encode()).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority-data": ca}}],
            "users": [{"name": "test", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "current-context": "test",
        }

    def write_kubeconfig(self, path: Path, *, namespace: str = "default") -> Path:
        """Write the kubeconfig to *path*, for its owner only."""
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.kubeconfig(namespace=namespace), indent=1))
        return path


class Client:
    """Requests as one user; safe to share between threads. Close it, or use it as a context manager."""

    def __init__(self, access: Access, *, timeout_s: float = 30.0) -> None:
        """Prepare; the first request of each thread connects."""
        self.access = access
        self._timeout_s = timeout_s
        self._local = threading.local()
        self._connections: list[http.client.HTTPSConnection] = []

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def get(self, path: str, **query: str | int) -> Json:
        """GET an object, or a whole list in one answer."""
        return self.request("GET", path, query=query)

    def items(self, path: str, **query: str | int) -> list[Json]:
        """GET a list and give its items, each with the apiVersion and kind that lists leave out."""
        listed = self.get(path, **query)
        head = {"apiVersion": listed["apiVersion"], "kind": listed["kind"].removesuffix("List")}
        return [head | item for item in listed["items"]]

    def create(self, obj: Json, *, namespace: str | None = None) -> Json:
        """POST *obj* where its kind and namespace say."""
        return self.request("POST", collection_of(obj, namespace=namespace), obj)

    def replace(self, path: str, obj: Json) -> Json:
        """PUT *obj*."""
        return self.request("PUT", path, obj)

    def patch(self, path: str, operations: list[Json], **query: str | int) -> Json:
        """Send a JSON patch."""
        return self.request("PATCH", path, operations, content_type=JSON_PATCH, query=query)

    def merge(self, path: str, part: Json, **query: str | int) -> Json:
        """Send a JSON merge patch."""
        return self.request("PATCH", path, part, content_type=MERGE_PATCH, query=query)

    def delete(self, path: str, *, uid: str | None = None) -> Json:
        """DELETE an object (only the one with this *uid*, when given), or a whole collection."""
        return self.request("DELETE", path, None if uid is None else {"preconditions": {"uid": uid}})

    def watch(self, path: str, **query: str | int) -> "Watch":
        """Open a watch, to be used as a context manager."""
        return Watch(self._connect(timeout_s=None), self._target(path, {"watch": 1, **query}), self._headers)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str | int] | None = None,
    ) -> Json:
        """Send one request on this thread's kept connection and decode the answer, or raise ApiError."""
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        connection = self._kept()
        try:
            connection.request(
                method, self._target(path, query or {}), data, {**self._headers, "Content-Type": content_type}
            )
            response = connection.getresponse()
            answer = response.read()
        except BaseException:
            connection.close()  # half an exchange must never be continued
            raise
        return _decoded(response.status, answer)

    def close(self) -> None:
        """Close the connections of all threads; a later request opens its own again."""
        for connection in self._connections:
            connection.close()

    @cached_property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access.token}", "Accept": "application/json"}

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.access.ca)

    def _target(self, path: str, query: Mapping[str, str | int]) -> str:
        return f"{path}?{urlencode(query)}" if query else path

    def _connect(self, *, timeout_s: float | None) -> http.client.HTTPSConnection:
        url = urlsplit(self.access.url)
        return http.client.HTTPSConnection(str(url.hostname), url.port, timeout=timeout_s, context=self._tls)

    def _kept(self) -> http.client.HTTPSConnection:
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect(timeout_s=self._timeout_s)
            self._connections.append(connection)
        if connection.sock is not None and _readable(connection.sock):
            connection.close()  # between requests only an end of file can be there to read
        return connection


class Watch:
    """An open watch: iterate over its events; `end` it from any thread; leave its context to close it."""

    def __init__(self, connection: http.client.HTTPSConnection, target: str, headers: Mapping[str, str]) -> None:
        """Send the request and wait for the first line of the answer, so that nothing after this is missed."""
        connection.request("GET", target, headers=dict(headers))
        self._connection = connection
        self._socket = connection.sock
        self._response = connection.getresponse()
        self._ended = False
        if self._response.status != http.HTTPStatus.OK:
            with contextlib.closing(connection):
                _decoded(self._response.status, self._response.read())

    def __iter__(self) -> Iterator[Json]:
        """Give each event until the server or `end` ends the watch."""
        try:
            for line in self._response:
                yield json.loads(line)
        except (OSError, ValueError, http.client.HTTPException):
            if not self._ended:
                raise

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.end()
        self._response.close()
        self._connection.close()

    def end(self) -> None:
        """End the watch; a thread that is reading wakes up."""
        self._ended = True
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # not SSLSocket's, which pulls TLS from under it


def collection_of(obj: Json, *, namespace: str | None = None) -> str:
    """Give the path under which objects like *obj* are created."""
    kind: str = obj["kind"]
    plural = kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s")
    if kind in _CLUSTER_SCOPED:
        return path_of(obj["apiVersion"], plural)
    return path_of(obj["apiVersion"], plural, namespace=namespace or obj["metadata"].get("namespace", "default"))


def path_of(
    api_version: str, plural: str, *, namespace: str | None = None, name: str | None = None, sub: str | None = None
) -> str:
    """Give the path of a collection, an object or a subresource."""
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    scope = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"{root}{scope}/{plural}" + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")


def _decoded(status: int, answer: bytes) -> Json:
    try:
        body: Json = json.loads(answer)
    except ValueError:
        body = {"message": answer.decode(errors="replace")}
    if status >= http.HTTPStatus.BAD_REQUEST:
        raise ApiError(status, body)
    return body


def _readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])
