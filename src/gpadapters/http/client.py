"""A client of the planner's HTTP API, for planners of one's own and for the command line.

Rules of this file: it sends and reads, and judges nothing: a refusal is an answer. Only a server that cannot be
reached, or that does not speak this API, is an error.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import attrs
import httpx

from gpadapters.answering import Said
from gpcore import wire
from gpcore.decisions import NotLeading
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

    What another planner decides is asked of that one, once, where the refusal names it.
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

    def freezes(self) -> Answer:
        """Ask for the freezes that hold."""
        return self.ask("GET", "/v1/freezes")

    def operation(self, key: str) -> Answer:
        """Ask how far the operation *key* is."""
        return self.ask("GET", f"/v1/operations/{key}")

    def ask(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Answer:
        """Send *document* and return the answer, whatever its code."""
        answer = self._sent(method, path, document)
        leader = _leader(answer)
        return self._sent(method, f"{leader}{path}", document) if leader else answer

    def _sent(self, method: str, path: str, document: Mapping[str, Any] | None) -> Answer:
        headers = {} if document is None else {"Content-Type": "application/json"}
        content = None if document is None else wire.dumps(document)
        asked = path.partition("/v1/")[0] or self._http.base_url
        try:
            response = self._http.request(method, path, content=content, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise UnreachableError(f"{asked} gave no answer: {type(exc).__name__}: {exc}") from exc
        try:
            found = wire.loads(response.content)
        except MalformedError as exc:
            raise UnreachableError(f"{asked} is not a planner: HTTP {response.status_code}") from exc
        if not isinstance(found, dict):
            raise UnreachableError(f"{asked} is not a planner: HTTP {response.status_code}")
        return Answer(found, response.status_code)


def _leader(answer: Answer) -> str | None:
    """Return the URL of the planner that decides, where *answer* refuses because it is another one and names it."""
    reason = answer.document.get("reason")
    leader = reason.get("leader") if isinstance(reason, dict) and answer.reason == NotLeading.kind else None
    named = isinstance(leader, str) and urlsplit(leader).scheme in ("http", "https")
    return str(leader).rstrip("/") if named else None
