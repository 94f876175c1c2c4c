"""What a caller asks for.

Rules of this file: a request that contradicts itself cannot be constructed; whether the fleet can meet it is decided
elsewhere.
"""

import re

import attrs

from gpcore.errors import InvalidError
from gpcore.pools import MAX_REPLICAS, ParticipantId, Role

MAX_TARGETS = 32
"""The most pools that one request may name."""

_LONG = 64

MAX_SEQUENCE = 2**63 - 1
"""The largest number that a caller may count to."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What a request may be called by its caller."""

_CALLER = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,315}[A-Za-z0-9])?")


@attrs.frozen
class Claimed:
    """Name the caller as the caller itself does: a Dynamo namespace that nobody has vouched for."""

    caller: str

    def __attrs_post_init__(self) -> None:
        if not _CALLER.fullmatch(self.caller):
            shown = ascii(self.caller[:80])
            raise InvalidError([f"caller must be 1 to 317 letters, digits, '-', '_' or '.': {shown}"])

    def __str__(self) -> str:
        return self.caller


@attrs.frozen
class Target:
    """Ask for *replicas* of one role; *component* is what the caller calls it, for a check."""

    role: Role
    replicas: int
    component: str | None = None

    def __attrs_post_init__(self) -> None:
        problems = []
        if self.role is Role.WORKER:
            problems.append("role must be 'prefill' or 'decode': 'worker'")
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, int):
            problems.append(f"replicas must be an integer: {ascii(self.replicas)[:80]}")
        elif not 0 <= self.replicas <= MAX_REPLICAS:
            problems.append(f"replicas must be between 0 and {MAX_REPLICAS}: {_number(self.replicas)}")
        if problems:
            raise InvalidError(problems)


@attrs.frozen
class ScaleRequest:
    """Ask for replicas of one participant's pools, all or none.

    *blocking* asks to be answered when the new replicas serve, not when they are written. A request that is sent again
    with its *request_id* (1 to 64 letters, digits, '.', '_' or '-') has one effect and one answer; one whose *sequence*
    is not above that of an earlier one of the caller comes too late to have any.
    """

    caller: Claimed
    participant: ParticipantId
    targets: tuple[Target, ...]
    blocking: bool = attrs.field(default=False, kw_only=True)
    request_id: str | None = attrs.field(default=None, kw_only=True)
    sequence: int | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        roles = [target.role for target in self.targets]
        problems = [f"role {role.value!r} is named {n} times" for role in Role if (n := roles.count(role)) > 1]
        if not 1 <= len(self.targets) <= MAX_TARGETS:
            problems.append(f"a request names 1 to {MAX_TARGETS} targets: {len(self.targets)}")
        if self.request_id is not None and not REQUEST_ID.fullmatch(self.request_id):
            shown = ascii(self.request_id[:80])
            problems.append(f"request_id must be 1 to 64 letters, digits, '.', '_' or '-': {shown}")
        if self.sequence is not None and not 0 <= self.sequence <= MAX_SEQUENCE:
            problems.append(f"sequence must be between 0 and {MAX_SEQUENCE}: {_number(self.sequence)}")
        if problems:
            raise InvalidError(problems)


def _number(value: int) -> str:
    """Return *value* for a message, without turning a number of a million digits into text."""
    return str(value) if value.bit_length() <= _LONG else f"an integer of {value.bit_length()} bits"
