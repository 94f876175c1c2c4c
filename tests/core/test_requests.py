import pytest

from gpcore.errors import InvalidError
from gpcore.pools import MAX_REPLICAS, ParticipantId, Role
from gpcore.requests import MAX_SEQUENCE, MAX_TARGETS, Claimed, ScaleRequest, Target


@pytest.mark.parametrize("caller", ["ns-a", "a", "A.b_c-9", "x" * 317])
def test_a_caller_is_a_name(caller: str) -> None:
    assert str(Claimed(caller)) == caller


@pytest.mark.parametrize("caller", ["", "-a", "a-", "a b", "a\n", "é", "x" * 318])
def test_what_is_no_name_is_no_caller(caller: str) -> None:
    with pytest.raises(InvalidError, match="caller must be"):
        Claimed(caller)


@pytest.mark.parametrize("replicas", [0, 1, MAX_REPLICAS])
def test_a_target_asks_for_a_count(replicas: int) -> None:
    assert Target(Role.PREFILL, replicas).replicas == replicas


@pytest.mark.parametrize(
    ("replicas", "told"),
    [
        (-1, "between 0 and 10000: -1"),
        (MAX_REPLICAS + 1, "between 0 and 10000: 10001"),
        (10**30, "between 0 and 10000: an integer of 100 bits"),
        (True, "must be an integer: True"),
        (1.0, "must be an integer: 1.0"),
        ("4", "must be an integer: '4'"),
    ],
)
def test_what_is_no_count_is_no_target(replicas: object, told: str) -> None:
    with pytest.raises(InvalidError, match=told):
        Target(Role.DECODE, replicas)  # type: ignore[arg-type]


def test_nobody_asks_for_workers_and_every_problem_is_told() -> None:
    with pytest.raises(InvalidError) as caught:
        Target(Role.WORKER, -1)
    assert len(caught.value.problems) == 2


def test_a_request_names_each_role_once_and_at_least_one() -> None:
    a = ParticipantId("ns", "a")
    one = Target(Role.PREFILL, 1)
    assert ScaleRequest(Claimed("ns-a"), a, (one, Target(Role.DECODE, 2))).targets[0] == one
    with pytest.raises(InvalidError, match="role 'prefill' is named 2 times"):
        ScaleRequest(Claimed("ns-a"), a, (one, one))
    for targets in ((), (one,) * (MAX_TARGETS + 1)):
        with pytest.raises(InvalidError, match=f"1 to {MAX_TARGETS} targets: {len(targets)}"):
            ScaleRequest(Claimed("ns-a"), a, targets)


def test_an_id_and_a_number_of_a_request_are_bounded_and_both_problems_are_told() -> None:
    a, targets = ParticipantId("ns", "a"), (Target(Role.PREFILL, 1),)
    assert ScaleRequest(Claimed("ns-a"), a, targets, request_id="a.b_c-1", sequence=MAX_SEQUENCE).sequence == 2**63 - 1
    with pytest.raises(InvalidError) as caught:
        ScaleRequest(Claimed("ns-a"), a, targets, request_id="a b", sequence=MAX_SEQUENCE + 1)
    assert [problem.split(" ")[0] for problem in caught.value.problems] == ["request_id", "sequence"]
