"""Who of several planners acts: an election whose only memory is one record that all of them can write.

Rules of this file: a lease saves work and keeps nothing safe; what is safe is so whoever believes to lead, and however
many do. Nobody's wall clock is compared with anybody else's: a lease is over when its record has not changed for its
duration on the reader's own monotonic clock. The wall-clock times in the record are for people.
"""

import math

import attrs

from gpcore.errors import InvalidError

MAX_DURATION_S = 3600.0
"""The longest that a lease may hold after its holder's last sign of life; beyond it, a number is a mistake."""

MAX_NAME = 253
"""The longest name of a holder, and the longest address, in characters."""

_JITTER = 1.2  # a pause between two tries may be longer than planned by so much, in other programs that elect alike


@attrs.frozen
class Lease:
    """Say that *holder* leads, listens at *address*, and does so until nothing was heard of it for *duration_s*.

    *holder* "" means that it was given up and is free at once. *term* counts the changes of the holder.
    *acquired_at* and *renewed_at* are seconds since 1970 on the holder's wall clock. A name or address of more than
    `MAX_NAME` characters or with unprintable ones, a duration that is not above 0 and at most `MAX_DURATION_S`, and a
    term below 0 raise `InvalidError`.
    """

    holder: str
    address: str = ""
    duration_s: float = 15.0
    term: int = 0
    acquired_at: float = 0.0
    renewed_at: float = 0.0

    def __attrs_post_init__(self) -> None:
        problems = []
        for name, text in (("holder", self.holder), ("address", self.address)):
            if len(text) > MAX_NAME or not text.isprintable():
                problems.append(f"{name} must be at most {MAX_NAME} printable characters: {text[:MAX_NAME]!a}")
        if not 0 < self.duration_s <= MAX_DURATION_S:
            problems.append(f"duration_s must be above 0 and at most {MAX_DURATION_S:g}: {self.duration_s:g}")
        if self.term < 0:
            problems.append(f"term must be at least 0: {self.term}")
        if problems:
            raise InvalidError(problems)


@attrs.frozen
class HeldLease:
    """A *lease* as it is stored; every write gives it another *version*."""

    lease: Lease
    version: str


@attrs.frozen
class Timing:
    """How long a lease holds, and how often it is looked after.

    A leader that could not renew for *deadline_s* stops leading, well before others may take over after *duration_s*.
    Everybody tries every *retry_s*. The defaults are those of client-go's leader election, as is the rule that each
    must be longer than the next, the deadline by 1.2 times; another order raises `InvalidError`.
    """

    duration_s: float = 15.0
    deadline_s: float = 10.0
    retry_s: float = 2.0

    def __attrs_post_init__(self) -> None:
        problems = []
        if not self.deadline_s < self.duration_s <= MAX_DURATION_S:
            between = f"above the deadline ({self.deadline_s:g}) and at most {MAX_DURATION_S:g}"
            problems.append(f"duration_s must be {between}: {self.duration_s:g}")
        if not self.deadline_s > _JITTER * self.retry_s:
            problems.append(f"deadline_s must be above {_JITTER} times {self.retry_s:g} (retry_s): {self.deadline_s:g}")
        if not self.retry_s > 0:
            problems.append(f"retry_s must be above 0: {self.retry_s:g}")
        if problems:
            raise InvalidError(problems)


@attrs.frozen
class Leading:
    """This planner acts, in this *term*."""

    term: int = 0


@attrs.frozen
class Following:
    """Another planner acts: *holder*, who listens at *address*; both are "" while nobody is known to."""

    holder: str = ""
    address: str = ""


Standing = Leading | Following


@attrs.frozen
class Election:
    """What the planner *identity*, which listens at *address*, knows of who leads.

    *held* is the record as it was read last, and *since* the local time at which it was first read so. Of the last
    write of ours that is known to have landed, *renewed* is the local time just before it was sent and *term* its
    term; None: we do not lead. All local times are monotonic seconds. *identity* must be of this process alone: two
    with one identity both lead.
    """

    identity: str
    address: str = ""
    timing: Timing = attrs.field(factory=Timing)
    held: HeldLease | None = None
    since: float = -math.inf
    renewed: float | None = None
    term: int = 0

    def __attrs_post_init__(self) -> None:
        if not self.identity:
            raise InvalidError(["identity must not be empty: that is how a lease says that nobody holds it"])

    def seen(self, held: HeldLease | None, *, now: float) -> "Election":
        """Return what is known after the record was read as *held* (None: there is none)."""
        ours = held is None or held.lease.holder == self.identity
        renewed = self.renewed if ours else None
        if held == self.held:
            return attrs.evolve(self, renewed=renewed)
        return attrs.evolve(self, held=held, since=now, renewed=renewed)

    def claim(self, *, now: float, wall: float) -> Lease | None:
        """Return the lease to write over what was read, or None where somebody else holds it.

        It is ours to renew, or free to take: there is no record, it was given up, or it has not changed for as long as
        it holds. *wall* are seconds since 1970.
        """
        lease = None if self.held is None else self.held.lease
        if lease is None:
            return Lease(self.identity, self.address, self.timing.duration_s, 0, wall, wall)
        if lease.holder == self.identity:
            return attrs.evolve(lease, address=self.address, duration_s=self.timing.duration_s, renewed_at=wall)
        if now < self._over_at:
            return None
        return Lease(self.identity, self.address, self.timing.duration_s, lease.term + 1, wall, wall)

    def claimed(self, lease: Lease, *, began: float) -> "Election":
        """Return what is known after *lease* was written, which *began* at this local time."""
        return attrs.evolve(self, renewed=began, term=lease.term)

    def released(self, *, wall: float) -> Lease | None:
        """Return the lease to write so that others need not wait for ours to end; None where it is not ours."""
        if self.held is None or self.held.lease.holder != self.identity:
            return None
        return attrs.evolve(self.held.lease, holder="", address="", renewed_at=wall)

    def standing(self, *, now: float) -> Standing:
        """Return who leads, as far as this planner knows."""
        if now < self.leads_until:
            return Leading(self.term)
        if self.held is None or self.held.lease.holder == self.identity or now >= self._over_at:
            return Following()
        return Following(self.held.lease.holder, self.held.lease.address)

    @property
    def leads_until(self) -> float:
        """Return the local time at which this planner stops leading if it cannot renew; it may be over."""
        return -math.inf if self.renewed is None else self.renewed + self.timing.deadline_s

    def pause_s(self, *, now: float, jitter: float) -> float:
        """Return the seconds until the next try; *jitter* is from 0 to 1, by chance.

        A leader tries every *retry_s*. A follower looks twice as often at most, so that it knows within *retry_s* when
        the record last changed, and is there when the lease is over. Together that is at most *duration_s* + *retry_s*
        from the death of a leader to the try that succeeds it.
        """
        retry_s = self.timing.retry_s
        if now < self.leads_until:
            return min(retry_s, self.leads_until - now)
        usual = retry_s * (1 - jitter / 2)
        return min(usual, self._over_at - now) if now < self._over_at else usual

    @property
    def _over_at(self) -> float:
        """Return the local time from which the lease that was read is free."""
        if self.held is None or not self.held.lease.holder:
            return -math.inf
        return self.since + self.held.lease.duration_s
