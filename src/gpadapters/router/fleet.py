"""The pools as the router sees them: endpoints, what is in flight, and which are left alone.

Rules of this file: one loop owns all of it and nothing awaits; time comes in as an argument; what an endpoint did is
told here and judged here, and choosing among pools is elsewhere.
"""

import enum
from collections.abc import Iterable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

import attrs

from gpadapters.router.heads import AnswerHead
from gpadapters.router.measures import PoolMeasures
from gpadapters.router.refusals import Refusal
from gpadapters.router.settings import Admission, Breaking, Retries
from gpcore.errors import InvalidError

_BACKLOG = 1 << 30


class Condition(enum.StrEnum):
    """Why a pool is left out, or that it is not."""

    SERVING = "serving"
    EMPTY = "empty"
    COLD = "cold"
    DRAINING = "draining"
    DENIED = "denied"
    UNHEALTHY = "unhealthy"


@attrs.frozen
class Address:
    """Say where an endpoint is: configuration only ever makes these, never a request."""

    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read `http://HOST:PORT`, with nothing else in it."""
        parts = urlsplit(url if "//" in url else f"//{url}")
        try:
            port = parts.port
        except ValueError:
            port = None
        extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password
        if parts.scheme not in {"", "http"} or not parts.hostname or not port or extra:
            raise InvalidError([f"an endpoint is http://HOST:PORT: {ascii(url)[:200]}"])
        return cls(parts.hostname, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Asker(Protocol):
    """What a connection tells about the answer that it reads."""

    def connected(self, connection: "Connection") -> None:
        """Take the connection that was asked for."""

    def whole(self, head: AnswerHead, body: bytes) -> None:
        """Take a good answer that came in one read."""

    def received(self, head: AnswerHead | None, body: bytes, *, complete: bool, status: int = 0) -> None:
        """Take what one read brought, *head* if it is the first."""

    def lost(self, why: Refusal) -> None:
        """Take note that there will be no more."""


class Connection(Protocol):
    """A connection to an endpoint, as those see it who ask over it."""

    endpoint: "Endpoint"
    reused: bool
    idle_since: float

    @property
    def open(self) -> bool:
        """Say whether it can be asked over."""
        ...

    def ask(self, asker: Asker, data: bytes) -> None:
        """Send a request."""

    def drop(self) -> None:
        """Close at once."""

    def hold(self) -> None:
        """Read no more for now."""

    def go_on(self) -> None:
        """Read again."""


class Endpoint:
    """One server of a pool, its kept connections, and how it has been doing."""

    __slots__ = (
        "_breaking",
        "_failed_share",
        "_failures",
        "_open_s",
        "_trial",
        "address",
        "ejections",
        "idle",
        "name",
        "open_until",
        "outlier",
        "outstanding",
        "pool",
        "removed",
        "request_head",
    )

    def __init__(self, pool: "Pool", address: Address, breaking: Breaking) -> None:
        """Begin with no connection and a clean record."""
        self.pool = pool
        self.address = address
        self.name = str(address).encode()
        self.request_head = b"host: %b\r\ncontent-type: application/json\r\n" % self.name
        self.idle: list[Connection] = []
        self.outstanding = 0
        self.open_until = 0.0
        self.outlier = False
        self.ejections = 0
        self.removed = False
        self._breaking = breaking
        self._failures = 0
        self._failed_share = 0.0
        self._open_s = breaking.open_s
        self._trial = False

    def usable(self, now: float) -> bool:
        """Say whether a request may go here: the breaker is closed, or it is time for one trial."""
        return self.open_until == 0.0 or (now >= self.open_until and not self._trial)

    @property
    def state(self) -> str:
        """Return the breaker's state."""
        if self.open_until == 0.0:
            return "closed"
        return "half-open" if self._trial else "open"

    def begin(self) -> None:
        """Count one request more."""
        self.outstanding += 1
        if self.open_until != 0.0:
            self._trial = True

    def end(self) -> None:
        """Count one request less, whatever became of it."""
        self.outstanding -= 1
        self._trial = False

    def succeeded(self) -> None:
        """Remember a good answer; it closes the breaker."""
        if self._failures or self._failed_share or self.open_until:
            self._failures = 0
            self._failed_share *= 1 - self._breaking.outlier_weight
            if self._failed_share < 1e-3:  # noqa: PLR2004 - so that the common case is one comparison again
                self._failed_share = 0.0
            self._close()

    def failed(self, now: float) -> None:
        """Remember a failure; enough of them in a row, or a large enough share, open the breaker."""
        rules = self._breaking
        self._failures += 1
        self._failed_share += rules.outlier_weight * (1 - self._failed_share)
        if self.open_until != 0.0 or self._failures >= rules.failures:
            self._open(now)
        elif self._failed_share >= rules.outlier_share and self.pool.may_eject():
            self.outlier = True
            self._open(now)

    def _open(self, now: float) -> None:
        if now < self.open_until:
            return  # a request that was under way when it opened
        self.ejections += 1
        self.open_until = now + self._open_s
        self._open_s = min(2 * self._open_s, self._breaking.open_max_s)

    def _close(self) -> None:
        self.open_until, self.outlier, self._open_s = 0.0, False, self._breaking.open_s


class Pool:
    """Endpoints that serve the same, and what is in flight there."""

    __slots__ = (
        "_breaking",
        "_turn",
        "admission",
        "endpoints",
        "in_flight",
        "limits",
        "measures",
        "name",
        "planned",
        "role",
    )

    def __init__(
        self, name: str, role: str, measures: PoolMeasures, *, admission: Admission, breaking: Breaking
    ) -> None:
        """Begin with no endpoint."""
        self.name = name
        self.role = role
        self.measures = measures
        self.endpoints: tuple[Endpoint, ...] = ()
        self.in_flight = 0
        self.planned = Condition.SERVING
        self._breaking = breaking
        self._turn = 0
        self.admit_by(admission)

    def admit_by(self, admission: Admission) -> None:
        """Take *admission* from now on."""
        most = admission.in_flight
        self.admission = admission
        self.limits = (int(most * admission.sheddable_share), int(most * admission.standard_share), most)

    def admits(self, priority: int) -> bool:
        """Say whether one more request of *priority* may enter."""
        return self.in_flight < self.limits[0 if priority < 0 else 1 if priority == 0 else 2]

    def condition(self, now: float) -> Condition:
        """Say whether requests can go here, or why not."""
        if self.planned is not Condition.SERVING:
            return self.planned
        if not self.endpoints:
            return Condition.EMPTY
        for endpoint in self.endpoints:
            if endpoint.usable(now):
                return Condition.SERVING
        return Condition.UNHEALTHY

    def pick(self, now: float, tried: Iterable[Endpoint] = ()) -> Endpoint | None:
        """Return the usable endpoint with the least outstanding, in turn where several have; one not *tried*."""
        endpoints = self.endpoints
        count = len(endpoints)
        if count == 1:
            only = endpoints[0]
            return only if only.usable(now) and only not in tried else None
        self._turn = turn = self._turn + 1
        best, least = None, _BACKLOG
        for at in range(count):
            endpoint = endpoints[(turn + at) % count]
            if endpoint.outstanding < least and endpoint.usable(now) and endpoint not in tried:
                best, least = endpoint, endpoint.outstanding
        return best

    def may_eject(self) -> bool:
        """Say whether one more endpoint may be ejected as an outlier."""
        ejected = sum(endpoint.outlier for endpoint in self.endpoints)
        return ejected + 1 <= len(self.endpoints) * self._breaking.ejected_share

    def serve_from(self, addresses: Iterable[Address]) -> list[Endpoint]:
        """Have one endpoint for each of *addresses*, keeping those that stay; return those that went."""
        known = {endpoint.address: endpoint for endpoint in self.endpoints}
        wanted = dict.fromkeys(addresses)
        self.endpoints = tuple(known.get(one) or Endpoint(self, one, self._breaking) for one in wanted)
        gone = [endpoint for address, endpoint in known.items() if address not in wanted]
        for endpoint in gone:
            endpoint.removed = True
        return gone


class RetryBudget:
    """What may be tried again: a share of the requests, saved up to a small burst."""

    __slots__ = ("_burst", "_rules", "_saved")

    def __init__(self, rules: Retries) -> None:
        """Begin with the whole burst."""
        self._rules = rules
        self._burst = float(rules.burst)
        self._saved = self._burst

    def request(self) -> None:
        """Save for one request more."""
        saved = self._saved + self._rules.share
        self._saved = min(self._burst, saved)

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


Endpoints = Mapping[str, tuple[Address, ...]]
"""The addresses of each pool, by its Dynamo namespace."""
