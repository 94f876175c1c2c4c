from collections.abc import AsyncIterator
from typing import get_args, get_type_hints

from gpcore import ports
from gpcore.ledger import Ledger
from gpcore.ports import (
    Absent,
    Applied,
    Applying,
    Conflicted,
    Executor,
    LeaseStore,
    LedgerStore,
    Observation,
    Observer,
    Refused,
    Saved,
    Saving,
    TurnedAway,
    Unknown,
    Versioned,
)
from gpcore.testing.fakes import MemoryCluster
from gpcore.testing.stores import MemoryLease, MemoryLedger


def test_the_cluster_in_memory_is_both_ports() -> None:
    cluster = MemoryCluster()
    both: tuple[Observer, Executor] = (cluster, cluster)  # a type checker says whether it is
    assert len(both) == 2


def test_the_stores_in_memory_are_the_ports() -> None:
    stores: tuple[LedgerStore, LeaseStore] = (MemoryLedger(), MemoryLease())
    assert len(stores) == 2


def test_what_becomes_of_a_save_is_one_of_four() -> None:
    assert set(get_args(Saving)) == {Saved, Conflicted, Refused, Unknown}
    assert Versioned(Ledger(), "1").size == Saved("1").size == 0


def test_what_an_observer_yields_are_events() -> None:
    assert get_type_hints(Observer.observe)["return"] == AsyncIterator[Observation]
    assert {one.__name__ for one in get_args(Observation)} == {"Listed", "Seen", "Gone", "Stale"}


def test_an_application_that_failed_says_why() -> None:
    assert set(get_args(Applying)) == {Applied, Refused, Absent, Unknown}
    assert (Refused("no").detail, Unknown("lost").detail, TurnedAway("stopping").kind) == ("no", "lost", "stopping")


def test_a_port_is_a_handful_of_methods() -> None:
    found = {
        name: one for name, one in vars(ports).items() if getattr(one, "_is_protocol", False) and name != "Protocol"
    }
    sizes = {name: len([method for method in vars(one) if not method.startswith("_")]) for name, one in found.items()}
    assert sizes == {"Observer": 2, "Executor": 2, "LedgerStore": 2, "LeaseStore": 2, "Auditor": 1, "Planning": 11}
