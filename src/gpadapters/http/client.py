"""A client of the planner's HTTP API, for planners of one's own and for the command line.

Rules of this file: it sends and reads, and judges nothing: a refusal is an answer. Only a server that cannot be
reached, or that does not speak this API, is an error.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import attrs
import httpx

from gpadapters.answering import Said
from gpcore import wire
from gpcore.errors import MalformedError, PortError
from gpcore.requests import ScaleRequest


class UnreachableError(PortError):
    """The planner gave no answer; whether it took the request is not known."""


@attrs.frozen
class Answer(Said):
    """What the planner said, and the HTTP *code* that it said it with."""

    code: int


class Client:
    """Ask the planner at *url*; one connection is kept for all that is asked.

    Use it in a `with` statement. A *transport* of httpx's replaces the network.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout_s, transport=transport, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def scale(self, request: ScaleRequest) -> Answer:
        """Ask for replicas."""
        return self.ask("POST", "/v1/scale", wire.scale_request_json(request))

    def decide(self, request: ScaleRequest) -> Answer:
        """Ask how *request* would be decided; nothing is done."""
        return self.ask("POST", "/v1/decide", wire.scale_request_json(request))

    def pools(self) -> Answer:
        """Ask for every pool."""
        return self.ask("GET", "/v1/pools")

    def budget(self) -> Answer:
        """Ask for the bounds and what counts."""
        return self.ask("GET", "/v1/budget")

    def decisions(self) -> Answer:
        """Ask for the last decisions."""
        return self.ask("GET", "/v1/decisions")

    def operation(self, key: str) -> Answer:
        """Ask how far the operation *key* is."""
        return self.ask("GET", f"/v1/operations/{key}")

    def ask(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Answer:
        """Send *document* and return the answer, whatever its code."""
        headers = {} if document is None else {"Content-Type": "application/json"}
        content = None if document is None else wire.dumps(document)
        try:
            response = self._http.request(method, path, content=content, headers=headers)
        except httpx.HTTPError as exc:
            raise UnreachableError(f"{self._http.base_url} gave no answer: {type(exc).__name__}: {exc}") from exc
        try:
            found = wire.loads(response.content)
        except MalformedError as exc:
            raise UnreachableError(f"{self._http.base_url} is not a planner: HTTP {response.status_code}") from exc
        if not isinstance(found, dict):
            raise UnreachableError(f"{self._http.base_url} is not a planner: HTTP {response.status_code}")
        return Answer(found, response.status_code)
