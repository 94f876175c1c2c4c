"""What every store of a ledger and of a lease promises beyond its types, as checks to run against a real one.

A check takes a *maker*, which opens a place of its own where nothing is stored, and gives what opens stores on it, each
as another process would. It fails with a sentence. In a test of yours:

    @pytest.mark.parametrize("check", LEDGER_CHECKS, ids=lambda check: check.__name__)
    async def test_it_keeps_its_promises(check):
        await check(my_maker)

Rules of this file: a check uses the ports alone, and waits for nothing but their answers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import attrs

from gpcore.budgets import Budget
from gpcore.fences import Fence
from gpcore.leases import Lease
from gpcore.ledger import Entry, Held, Ledger, ObjectKey, Reservation
from gpcore.pools import ParticipantId, Role
from gpcore.ports import Conflicted, LeaseStore, LedgerStore, Saved, Saving

RACERS = 20
"""How many save at once, where a check lets stores race."""

LedgerMaker = Callable[[], AbstractAsyncContextManager[Callable[[], LedgerStore]]]
LeaseMaker = Callable[[], AbstractAsyncContextManager[Callable[[], LeaseStore]]]
LedgerCheck = Callable[[LedgerMaker], Awaitable[None]]
LeaseCheck = Callable[[LeaseMaker], Awaitable[None]]

_LEASE = Lease("a", "http://a:8080", 15.0, 3, 1_000_000_000.5, 1_000_000_007.25)


async def before_the_first_save_there_is_no_ledger(maker: LedgerMaker) -> None:
    """Check that nothing is found where nothing was saved."""
    async with maker() as opened:
        _claim(await opened().load() is None, "a ledger is found where none was saved")


async def what_was_saved_is_loaded_by_everybody(maker: LedgerMaker) -> None:
    """Check that another store loads the ledger as it was saved, in the version that the save was answered with."""
    async with maker() as opened:
        first, ledger = opened(), _ledger(1)
        version = await _saved(first, ledger, None)
        for store in (first, opened()):
            found = await store.load()
            _claim(found is not None and found.ledger == ledger, f"another ledger than was saved is loaded: {found}")
            _claim(found is not None and found.version == version, "the version is not the one that was answered")


async def a_save_replaces_the_whole_ledger(maker: LedgerMaker) -> None:
    """Check that nothing of an older ledger is left in a newer one, and that each has a version of its own."""
    async with maker() as opened:
        store, versions = opened(), list[str]()
        for at, ledger in enumerate((_ledger(2), _ledger(1), _ledger(0))):
            versions.append(await _saved(store, ledger, versions[-1] if at else None))
            found = await store.load()
            _claim(found is not None and found.ledger == ledger, f"something of an older ledger is left: {found}")
        _claim(len(set(versions)) == len(versions), f"two ledgers have one version: {versions}")


async def a_save_over_an_older_version_conflicts(maker: LedgerMaker) -> None:
    """Check that whoever has not seen the newest ledger changes nothing, in whichever store."""
    async with maker() as opened:
        store = opened()
        first = await _saved(store, _ledger(1), None)
        await _saved(store, _ledger(2), first)
        for late in (store, opened()):
            answer = await late.save(_ledger(3), expected=first)
            _claim(answer == Conflicted(), f"a save over an older version is answered {answer}")
        found = await store.load()
        _claim(found is not None and found.ledger == _ledger(2), "a save over an older version has landed")


async def a_ledger_is_created_once(maker: LedgerMaker) -> None:
    """Check that creating conflicts where there is a ledger, and changes nothing."""
    async with maker() as opened:
        await _saved(opened(), _ledger(1), None)
        answer = await opened().save(_ledger(2), expected=None)
        _claim(answer == Conflicted(), f"creating a second ledger is answered {answer}")
        found = await opened().load()
        _claim(found is not None and found.ledger == _ledger(1), "a second ledger was created over the first")


async def of_many_creators_one_wins(maker: LedgerMaker) -> None:
    """Check that of many who find no ledger just one creates it."""
    async with maker() as opened:
        answers = await asyncio.gather(*(opened().save(_ledger(n), expected=None) for n in range(RACERS)))
        await _one_won(opened(), answers, "created")


async def of_many_savers_one_wins_each_version(maker: LedgerMaker) -> None:
    """Check, for several versions, that of many who have seen a version just one saves over it, and others know.

    Each saves something that was not there before: to save what is stored is to change nothing, and need not conflict.
    """
    async with maker() as opened:
        await _saved(opened(), _ledger(RACERS), None)
        stores = [opened() for _ in range(RACERS)]
        for turn in range(2, 5):
            found = [await store.load() for store in stores]
            versions = [one.version for one in found if one is not None]
            _claim(len(versions) == RACERS and len(set(versions)) == 1, f"one ledger has several versions: {versions}")
            answers = await asyncio.gather(
                *(store.save(_ledger(n, turn), expected=versions[n]) for n, store in enumerate(stores))
            )
            await _one_won(opened(), answers, "saved", turn)


async def a_winner_can_go_on(maker: LedgerMaker) -> None:
    """Check that the version with which a save is answered is the one to save over next, without loading."""
    async with maker() as opened:
        store, version = opened(), None
        for count in range(5):
            version = await _saved(store, _ledger(count), version)


LEDGER_CHECKS: tuple[LedgerCheck, ...] = (
    before_the_first_save_there_is_no_ledger,
    what_was_saved_is_loaded_by_everybody,
    a_save_replaces_the_whole_ledger,
    a_save_over_an_older_version_conflicts,
    a_ledger_is_created_once,
    of_many_creators_one_wins,
    of_many_savers_one_wins_each_version,
    a_winner_can_go_on,
)
"""Every check of a store of ledgers."""


async def before_the_first_claim_there_is_no_lease(maker: LeaseMaker) -> None:
    """Check that nothing is found where nothing was saved."""
    async with maker() as opened:
        _claim(await opened().load() is None, "a lease is found where none was saved")


async def what_was_claimed_is_seen_by_everybody(maker: LeaseMaker) -> None:
    """Check that another store loads a lease as it was saved, held or given up."""
    async with maker() as opened:
        for lease in (_LEASE, attrs.evolve(_LEASE, holder="", address="", renewed_at=1_000_000_009.0)):
            held = await opened().load()
            await _claimed(opened(), lease, None if held is None else held.version)
            found = await opened().load()
            _claim(found is not None and found.lease == lease, f"another lease than was saved is loaded: {found}")


async def a_renewal_changes_the_version(maker: LeaseMaker) -> None:
    """Check that others can tell a holder that renews from one that is dead."""
    async with maker() as opened:
        store, versions = opened(), list[str | None]()
        for count in range(3):
            held = await store.load()
            lease = attrs.evolve(_LEASE, renewed_at=_LEASE.renewed_at + count)
            await _claimed(store, lease, None if held is None else held.version)
            held = await opened().load()
            versions.append(None if held is None else held.version)
        _claim(len(set(versions)) == len(versions), f"two renewals have one version: {versions}")


async def a_claim_on_an_older_version_fails(maker: LeaseMaker) -> None:
    """Check that whoever has not seen the newest lease changes nothing."""
    async with maker() as opened:
        await opened().save(_LEASE, expected=None)
        late = opened()
        seen = await late.load()
        newer = attrs.evolve(_LEASE, renewed_at=_LEASE.renewed_at + 2)
        await opened().save(newer, expected=None if seen is None else seen.version)
        for expected in (None, None if seen is None else seen.version):
            answer = await late.save(attrs.evolve(_LEASE, holder="b"), expected=expected)
            _claim(answer == Conflicted(), f"a claim on an older version is answered {answer}")
        found = await opened().load()
        _claim(found is not None and found.lease == newer, f"a claim that failed has landed: {found}")


async def of_many_claims_one_wins(maker: LeaseMaker) -> None:
    """Check that of many who claim a lease as they have seen it just one gets it, and none where it is theirs."""
    async with maker() as opened:
        stores = [opened() for _ in range(RACERS)]
        for _ in range(3):
            held = await stores[0].load()
            expected = None if held is None else held.version
            claims = [attrs.evolve(_LEASE, holder=f"{expected}-{n}") for n in range(RACERS)]
            answers = await asyncio.gather(*(s.save(c, expected=expected) for s, c in zip(stores, claims, strict=True)))
            winner = _winner(answers, "claimed")
            found = await opened().load()
            _claim(found is not None and found.lease == claims[winner], f"the lease is not the winner's: {found}")


LEASE_CHECKS: tuple[LeaseCheck, ...] = (
    before_the_first_claim_there_is_no_lease,
    what_was_claimed_is_seen_by_everybody,
    a_renewal_changes_the_version,
    a_claim_on_an_older_version_fails,
    of_many_claims_one_wins,
)
"""Every check of a store of leases."""


def _ledger(number: int, epoch: int = 1) -> Ledger:
    """Return a ledger of *number* objects, of which the first is being adopted."""
    entries = []
    for at in range(number):
        key = ObjectKey(ParticipantId("ns", f"d{at}"), f"deployment/d{at}")
        reservation = Reservation(Fence(f"o{at}", f"n{at}", f"k{at}")) if at == 0 else None
        entries.append(Entry(key, f"o{at}", (Held(Role.PREFILL, at, 2), Held(Role.DECODE, 1, None)), reservation))
    return attrs.evolve(Ledger.of(entries, budget=Budget(0, 1000)), epoch=epoch, complete=number % 2 == 0)


async def _saved(store: LedgerStore, ledger: Ledger, expected: str | None) -> str:
    answer = await store.save(ledger, expected=expected)
    if isinstance(answer, Saved):
        return answer.version
    raise AssertionError(f"a save over what is there is answered {answer}")


async def _claimed(store: LeaseStore, lease: Lease, expected: str | None) -> None:
    answer = await store.save(lease, expected=expected)
    _claim(isinstance(answer, Saved), f"a claim on what is there is answered {answer}")


async def _one_won(store: LedgerStore, answers: Sequence[Saving], what: str, epoch: int = 1) -> None:
    """Claim that one save was answered as such and is what is found, and that all others conflicted."""
    winner = _winner(answers, what)
    found = await store.load()
    _claim(found is not None and found.ledger == _ledger(winner, epoch), f"what is found is not the winner's: {found}")


def _winner(answers: Sequence[Saving], what: str) -> int:
    """Return the number of the one answer that is a success; all others are to be conflicts."""
    winners = [number for number, answer in enumerate(answers) if isinstance(answer, Saved)]
    _claim(len(winners) == 1, f"{len(winners)} of {len(answers)} have {what} one version: {answers}")
    losers = [answer for answer in answers if not isinstance(answer, Saved)]
    _claim(all(answer == Conflicted() for answer in losers), f"those who lost are answered {losers}")
    return winners[0]


def _claim(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - a claim is what it is about
    if not holds:
        raise AssertionError(otherwise)
