"""What bounds the router: sizes, times and shares, each with the default of the reliability anchors.

Rules of this file: every bound has a name and a unit; a contradiction cannot be constructed; times are durations.
"""

import attrs
from attrs import validators

KIB = 1024
MIB = 1024 * KIB


@attrs.frozen(kw_only=True)
class Limits:
    """Bound what a client or an upstream can make the router hold."""

    body_bytes: int = attrs.field(default=8 * MIB, validator=validators.gt(0))
    bodies_bytes: int = attrs.field(default=512 * MIB, validator=validators.gt(0))
    """All request bodies that are held at once."""
    headers: int = attrs.field(default=64, validator=validators.gt(0))
    header_bytes: int = attrs.field(default=8 * KIB, validator=validators.gt(0))
    head_bytes: int = attrs.field(default=32 * KIB, validator=validators.gt(0))
    target_bytes: int = attrs.field(default=8 * KIB, validator=validators.gt(0))
    answer_head_bytes: int = attrs.field(default=64 * KIB, validator=validators.gt(0))
    stream_bytes: int = attrs.field(default=256 * KIB, validator=validators.ge(128 * KIB))
    """What may wait for one client that reads slowly: half of it as the mark, one read of an upstream on top."""
    connections: int = attrs.field(default=2048, validator=validators.gt(0))
    connections_per_client: int | None = None
    """Behind a gateway every client has one address, so this is for routers that clients reach directly."""
    pipelined: int = attrs.field(default=16, validator=validators.gt(0))
    idle_per_endpoint: int = attrs.field(default=512, validator=validators.gt(0))
    waiting: int = attrs.field(default=1024, validator=validators.gt(0))
    """Requests that wait for a first replica."""


@attrs.frozen(kw_only=True)
class Timeouts:
    """Bound how long anything takes, in seconds."""

    head_s: float = attrs.field(default=10.0, validator=validators.gt(0))
    body_s: float = attrs.field(default=30.0, validator=validators.gt(0))
    """For a body that arrives slower than 1 KiB/s; a faster one may take longer."""
    idle_s: float = attrs.field(default=60.0, validator=validators.gt(0))
    linger_s: float = attrs.field(default=2.0, validator=validators.gt(0))
    """How long what a refused client still sends is thrown away, so that it can read why."""
    connect_s: float = attrs.field(default=2.0, validator=validators.gt(0))
    first_byte_s: float = attrs.field(default=120.0, validator=validators.gt(0))
    between_bytes_s: float = attrs.field(default=60.0, validator=validators.gt(0))
    total_s: float = attrs.field(default=3600.0, validator=validators.gt(0))
    stopped_reading_s: float = attrs.field(default=60.0, validator=validators.gt(0))
    """For a client that does not take what is there for it."""
    upstream_idle_s: float = attrs.field(default=30.0, validator=validators.gt(0))
    """A kept connection is closed after this, before common servers (60 s and more) would do it under us."""
    wait_for_replica_s: float = attrs.field(default=30.0, validator=validators.ge(0))
    drain_linger_s: float = attrs.field(default=5.0, validator=validators.ge(0))
    """How long new requests are still served after readiness failed."""
    drain_grace_s: float = attrs.field(default=300.0, validator=validators.ge(0))
    sweep_s: float = attrs.field(default=0.25, validator=validators.gt(0))
    """How often all the times above are looked at; they end at most this much late."""


@attrs.frozen(kw_only=True)
class Retries:
    """Bound what is tried again: a share of all requests, and a few for quiet times."""

    share: float = attrs.field(default=0.1, validator=[validators.ge(0), validators.le(1)])
    burst: int = attrs.field(default=10, validator=validators.ge(0))
    attempts: int = attrs.field(default=3, validator=validators.ge(1))


@attrs.frozen(kw_only=True)
class Breaking:
    """Say when an endpoint is left alone, and for how long."""

    failures: int = attrs.field(default=5, validator=validators.ge(1))
    """In a row."""
    open_s: float = attrs.field(default=5.0, validator=validators.gt(0))
    open_max_s: float = attrs.field(default=60.0, validator=validators.gt(0))
    outlier_share: float = attrs.field(default=0.5, validator=[validators.gt(0), validators.le(1)])
    """Failed share of recent answers at which an endpoint is ejected though some succeed."""
    outlier_weight: float = attrs.field(default=0.05, validator=[validators.gt(0), validators.lt(1)])
    """What one more answer counts in that share."""
    ejected_share: float = attrs.field(default=0.5, validator=[validators.ge(0), validators.le(1)])
    """Most of a pool that may be ejected as outliers; endpoints that fail in a row do not count here."""


@attrs.frozen(kw_only=True)
class Admission:
    """Bound what is in flight in one pool, and who is turned away first."""

    in_flight: int = attrs.field(default=4096, validator=validators.gt(0))
    sheddable_share: float = attrs.field(default=0.8, validator=[validators.gt(0), validators.le(1)])
    """Of the bound, for requests of a negative priority."""
    standard_share: float = attrs.field(default=0.95, validator=[validators.gt(0), validators.le(1)])
    """Of the bound, for requests of priority 0 or none; what is above takes the rest."""
    retry_after_s: int = attrs.field(default=1, validator=validators.ge(0))


@attrs.frozen(kw_only=True)
class Settings:
    """Everything about the data path that is not the routing configuration."""

    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    breaking: Breaking = Breaking()
    admission: Admission = Admission()
    half_output: bool = False
    """Look up the decode grid with half of the expected output on top of the input; the peer does not."""
    two_calls: bool = False
    """Ask the prefill endpoint first and hand on what it says, instead of naming it to the decode endpoint."""
