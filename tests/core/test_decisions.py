from typing import get_args

import pytest

from gpcore.decisions import (
    AmbiguousName,
    AnotherBody,
    Approved,
    Busy,
    CallerRefused,
    CeilingBreach,
    Decision,
    FloorBreach,
    Frozen,
    LedgerDown,
    LimitReached,
    Nearest,
    NotLeading,
    NotReady,
    NotScaled,
    NotYours,
    OldSequence,
    OnePoolTwice,
    PolicyBroken,
    Reason,
    Rejected,
    ShapeUnknown,
    UnknownDeployment,
    UnknownPool,
    Unsettled,
    ViewStale,
    WrongComponent,
    explain,
)
from gpcore.plans import Change, Plan
from gpcore.pools import ParticipantId, Totals
from tests.core.words import key, pool

A, B = ParticipantId("ns", "a"), ParticipantId("ns", "b")
UP, DOWN = Change.of(pool("a/prefill 4x1"), 6), Change.of(pool("b/decode 4x1"), 3)
TOLD: list[tuple[Reason, str]] = [
    (CeilingBreach(24, 16), "total 24 exceeds ceiling (16); nothing but to stay as it is fits now"),
    (
        CeilingBreach(24, 16, 6, Nearest((UP,), (DOWN,))),
        (
            "total 24 exceeds ceiling (16); partners can release 6 GPUs; "
            "the largest count that fits is 6, with ns/b/decode 4 to 3"
        ),
    ),
    (FloorBreach(5, 6, nearest=Nearest((DOWN,))), "total 5 below floor (6); the smallest count that fits is 3"),
    (
        FloorBreach(13, 16, 2, 1, Nearest((UP, DOWN))),
        (
            "total 13 below floor (16 - tol 2); partners can take 1 GPUs; "
            "the nearest that fits is ns/a/prefill 4 to 6, ns/b/decode 4 to 3"
        ),
    ),
    (ShapeUnknown((A, B)), "the GPUs per replica of ns/a, ns/b are not known, so nothing may grow until they are"),
    (UnknownPool(key("a/decode")), "ns/a has no pool for role 'decode'"),
    (NotScaled(key("a/decode"), "it waits"), "ns/a/decode is not scaled: it waits"),
    (WrongComponent(key("a/prefill"), "p", "d"), "the component of ns/a/prefill is 'p', not 'd'"),
    (OnePoolTwice(key("a/worker")), "two targets mean the pool ns/a/worker"),
    (CallerRefused("ns-x"), "Namespace ns-x not authorized"),
    (NotYours("ns-a", B), "ns/b is not a managed deployment that you may scale"),
    (UnknownDeployment(B), "ns/b is not a managed deployment that you may scale"),
    (AmbiguousName("n", (A, B)), "the name n is derived by ns/a and by ns/b; rename one"),
    (Busy(key("a/prefill"), "7"), "ns/a/prefill is being changed by operation 7; ask again when it has ended"),
    (NotReady(), "the cluster has not been read yet"),
    (ViewStale(), "the cluster is not being followed at the moment, so nothing may grow until it is"),
    (
        Unsettled((key("a/prefill"), key("b/decode"))),
        "what ns/a/prefill, ns/b/decode may have is being put on record; ask again in a moment",
    ),
    (NotLeading("http://other:8080"), "another planner decides, at http://other:8080"),
    (NotLeading(), "who decides is not known at the moment"),
    (LedgerDown("it is full"), "nothing can be promised without the ledger: it is full"),
    (
        Frozen(key("a/prefill"), "up", 99.0, "the racks are being moved"),
        "ns/a/prefill may not go up until the freeze ends: the racks are being moved",
    ),
    (LimitReached("gpus", 4, 300.0), "gpus limit: 4 GPUs have moved within 300 s, and no more may be"),
    (
        LimitReached("changes", 2, 60.0, key("a/prefill")),
        "changes limit: 2 changes of ns/a/prefill were made within 60 s, and no more may be",
    ),
    (AnotherBody("r-1"), "request r-1 was sent before, and asked for something else"),
    (OldSequence(3, 5), "sequence 3 comes too late: 5 was seen already"),
    (PolicyBroken("it sleeps"), "the policy's plan was not carried out: it sleeps"),
]


@pytest.mark.parametrize(("reason", "sentence"), TOLD)
def test_each_reason_has_its_sentence(reason: Reason, sentence: str) -> None:
    assert explain(Rejected(reason)) == sentence


def test_no_reason_is_forgotten_and_each_has_a_word_of_its_own() -> None:
    assert {type(reason) for reason, _ in TOLD} == set(get_args(Reason))
    assert len({kind.kind for kind in get_args(Reason)}) == len(get_args(Reason))


def test_who_may_not_know_learns_nothing_from_the_sentence() -> None:
    assert explain(Rejected(NotYours("ns-a", B))) == explain(Rejected(UnknownDeployment(B)))


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        (Approved(Plan(), Totals(4, 4)), "unchanged: the pools are as asked, total 4 GPUs"),
        (Approved(Plan.of([UP]), Totals(6, 6)), "approved: ns/a/prefill 4 to 6, total 6 GPUs when done"),
        (
            Approved(Plan.of([UP, DOWN]), Totals(9, 9)),
            "approved: ns/a/prefill 4 to 6, paired with ns/b/decode 4 to 3, total 9 GPUs when done",
        ),
    ],
)
def test_an_approval_says_what_becomes_of_whom(decision: Decision, sentence: str) -> None:
    assert explain(decision, participant=A) == sentence


def test_without_knowing_who_asked_nobody_is_a_partner() -> None:
    told = explain(Approved(Plan.of([UP, DOWN]), Totals(9, 9)))
    assert told == "approved: ns/b/decode 4 to 3, ns/a/prefill 4 to 6, total 9 GPUs when done"
