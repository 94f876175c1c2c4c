"""Each check of the stores catches a store that breaks the promise."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gpcore.leases import HeldLease, Lease
from gpcore.ledger import Ledger
from gpcore.ports import Conflicted, Refused, Saved, Saving, Versioned
from gpcore.testing import ledger_checks as checks
from gpcore.testing.ledger_checks import LEASE_CHECKS, LEDGER_CHECKS, LeaseCheck, LedgerCheck
from gpcore.testing.stores import MemoryLease, MemoryLedger


class Forgetful(MemoryLedger):
    """Finds a ledger where there is none, and never what was saved."""

    async def load(self) -> Versioned | None:
        return Versioned(Ledger(epoch=99), "1")


class Hasty(MemoryLedger):
    """Writes over whatever is there."""

    async def save(self, ledger: Ledger, *, expected: str | None) -> Saving:  # noqa: ARG002 - that is what is wrong
        found = await super().load()
        return await super().save(ledger, expected=None if found is None else found.version)


class Boastful(MemoryLedger):
    """Tells everybody that they have won."""

    async def save(self, ledger: Ledger, *, expected: str | None) -> Saving:
        answer = await super().save(ledger, expected=expected)
        return Saved("1") if answer == Conflicted() else answer


class Blunt(MemoryLedger):
    """Does not say why a save did not land."""

    async def save(self, ledger: Ledger, *, expected: str | None) -> Saving:
        answer = await super().save(ledger, expected=expected)
        return Refused("no") if answer == Conflicted() else answer


class Vague(MemoryLedger):
    """Answers with a version that is not the one to go on with."""

    async def save(self, ledger: Ledger, *, expected: str | None) -> Saving:
        answer = await super().save(ledger, expected=expected)
        return Saved("?") if isinstance(answer, Saved) else answer


CULPRITS: list[tuple[LedgerCheck, type[MemoryLedger]]] = [
    (checks.before_the_first_save_there_is_no_ledger, Forgetful),
    (checks.what_was_saved_is_loaded_by_everybody, Forgetful),
    (checks.what_was_saved_is_loaded_by_everybody, Vague),
    (checks.a_save_replaces_the_whole_ledger, Vague),
    (checks.a_save_over_an_older_version_conflicts, Hasty),
    (checks.a_save_over_an_older_version_conflicts, Blunt),
    (checks.a_ledger_is_created_once, Hasty),
    (checks.a_ledger_is_created_once, Boastful),
    (checks.of_many_creators_one_wins, Boastful),
    (checks.of_many_creators_one_wins, Blunt),
    (checks.of_many_savers_one_wins_each_version, Boastful),
    (checks.of_many_savers_one_wins_each_version, Blunt),
    (checks.a_winner_can_go_on, Vague),
]


@pytest.mark.parametrize(("check", "culprit"), CULPRITS, ids=lambda one: one.__name__)
async def test_a_check_catches_a_ledger_that_breaks_its_promise(
    check: LedgerCheck, culprit: type[MemoryLedger]
) -> None:
    @asynccontextmanager
    async def made() -> AsyncIterator[Callable[[], MemoryLedger]]:
        store = culprit()
        yield lambda: store

    with pytest.raises(AssertionError):
        await check(made)


def test_every_check_of_ledgers_has_somebody_whom_it_catches() -> None:
    assert {check for check, _ in CULPRITS} == set(LEDGER_CHECKS)


class Invented(MemoryLease):
    """Finds a lease where there is none, and never what was saved."""

    async def load(self) -> HeldLease | None:
        return HeldLease(Lease("somebody"), "1")


class Grabbing(MemoryLease):
    """Writes over whatever is there."""

    async def save(self, lease: Lease, *, expected: str | None) -> Saving:  # noqa: ARG002 - that is what is wrong
        held = await super().load()
        return await super().save(lease, expected=None if held is None else held.version)


class Lenient(MemoryLease):
    """Tells everybody that they have won."""

    async def save(self, lease: Lease, *, expected: str | None) -> Saving:
        await super().save(lease, expected=expected)
        return Saved("1")


class Motionless(MemoryLease):
    """Shows one version for ever."""

    async def load(self) -> HeldLease | None:
        held = await super().load()
        return None if held is None else HeldLease(held.lease, "1")


LEASE_CULPRITS: list[tuple[LeaseCheck, type[MemoryLease]]] = [
    (checks.before_the_first_claim_there_is_no_lease, Invented),
    (checks.what_was_claimed_is_seen_by_everybody, Invented),
    (checks.a_renewal_changes_the_version, Motionless),
    (checks.a_claim_on_an_older_version_fails, Grabbing),
    (checks.a_claim_on_an_older_version_fails, Lenient),
    (checks.of_many_claims_one_wins, Lenient),
]


@pytest.mark.parametrize(("check", "culprit"), LEASE_CULPRITS, ids=lambda one: one.__name__)
async def test_a_check_catches_a_lease_that_breaks_its_promise(check: LeaseCheck, culprit: type[MemoryLease]) -> None:
    @asynccontextmanager
    async def made() -> AsyncIterator[Callable[[], MemoryLease]]:
        store = culprit()
        yield lambda: store

    with pytest.raises(AssertionError):
        await check(made)


def test_every_check_of_leases_has_somebody_whom_it_catches() -> None:
    assert {check for check, _ in LEASE_CULPRITS} == set(LEASE_CHECKS)
