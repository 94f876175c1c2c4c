import attrs

from gpcore.budgets import Budget
from gpcore.control import Rules
from gpcore.events import Seen, Stale, Ticked
from gpcore.ledger import Entry, Held, believed, updated
from gpcore.operations import Operation, Stage
from gpcore.plans import Change, Step
from gpcore.pools import Authority, Deployment, ParticipantId, Role, Snapshot
from gpcore.reserving import changed_meanwhile, sendable
from gpcore.testing.settled import settled_state
from tests.core.driving import Planner, object_key, told
from tests.core.words import pool


def transfer(*, floor: int = 8, ceiling: int = 8, sizes: tuple[int, int] = (1, 1)) -> Planner:
    """Return a planner that was asked to give to a what b has."""
    a, b = sizes
    planner = Planner(f"a/prefill 4x{a}", f"b/prefill 4x{b}", floor=floor, ceiling=ceiling)
    planner.ask("b/prefill 3", name="0")
    planner.ask("a/prefill 5")
    return planner


def under_way(planner: Planner) -> Operation:
    return planner.state.operations["1"]


def test_what_releases_is_reserved_first_and_what_it_frees_when_it_is_seen_free() -> None:
    planner = transfer()
    assert [step.participant.name for step in under_way(planner).reserved] == ["b"]
    assert sendable(planner.state, under_way(planner)) == ()
    planner.lands()
    assert [step.participant.name for step in under_way(planner).reserved] == ["a"]


def by_adapters(*, ceiling: int) -> Planner:
    """Return a planner of one deployment whose two pools are objects of their own, at the floor."""
    pools = [
        attrs.evolve(one, authority=Authority(f"a-{one.key.role.value}", "uid"))
        for one in map(pool, ("a/prefill 4x1", "a/decode 4x1"))
    ]
    planner = Planner()
    rules = Rules(budget=Budget(8, ceiling))
    planner.state = settled_state(rules, Snapshot.of_pools(pools)).but(mint=planner.state.mint)
    return planner


def test_where_a_release_would_break_the_floor_and_there_is_room_the_acquisition_comes_first() -> None:
    planner = by_adapters(ceiling=9)
    assert told(planner.ask("a/prefill 5", "a/decode 3")) == ["Decided", "apply a 5"]
    assert told(planner.lands()) == ["apply a 3"]
    assert told(planner.lands(1)) == ["reply 1 Succeeded"]


def test_where_there_is_no_room_the_release_comes_first_and_the_dip_is_on_record() -> None:
    planner = by_adapters(ceiling=8)
    assert told(planner.ask("a/prefill 5", "a/decode 3")) == ["Decided", "apply a 3"]
    assert (planner.ledger.dip, planner.ledger.totals.least) == (1, 7)
    assert told(planner.lands()) == ["apply a 5"]


def test_each_write_has_a_fence_of_its_own_that_begins_where_the_last_one_ended() -> None:
    planner = Planner("a/prefill 4x1")
    fences = []
    for at, count in enumerate((5, 6, 7)):
        planner.ask(f"a/prefill {count}", name=str(at))
        planner.lands(at)
        fences.append(planner.order(at)[1].fence)
    first, second, third = (one for one in fences if one is not None)
    assert (second.old, third.old) == (first.new, second.new)
    assert len({mark for one in (first, second, third) for mark in (one.new, one.kill)}) == 6


def test_nothing_grows_while_something_is_not_as_the_ledger_has_it() -> None:
    planner = transfer()
    planner.see("c/prefill 1x1", fence="")
    planner.marked()
    planner.see("c/prefill 0x1", fence="a stranger's")
    planner.lands()
    assert under_way(planner).reserved == ()
    assert len(planner.state.behind) == 1


def test_nothing_grows_on_a_stale_view() -> None:
    planner = transfer()
    planner.happen(Stale())
    planner.lands()
    assert under_way(planner).reserved == ()


def test_what_was_changed_before_it_was_begun_is_never_begun_and_the_rest_is_given_back() -> None:
    planner = transfer()
    planner.see("a/prefill 3x1")
    planner.marked()
    assert "apply b 4" in told(planner.lands())
    assert under_way(planner).problem == "ns/a/prefill was changed by somebody else meanwhile"


def test_what_others_took_on_record_is_waited_for() -> None:
    planner = transfer()
    waiting = attrs.evolve(under_way(planner), escrow=0)
    strangers = Entry(object_key("z"), "settled", (Held(Role.PREFILL, 1, 1),))
    planner.lands(draining=1)
    planner.state = planner.state.drafting(
        believed(updated(planner.ledger, attrs.evolve(waiting, legs=under_way(planner).legs)), [strangers])
    )
    planner.shows()
    assert under_way(planner).at(Stage.WAITING), "the view has room, the ledger has none"


def test_what_is_not_known_keeps_what_waits_under_a_ceiling() -> None:
    planner = transfer()
    stranger = Deployment(ParticipantId("ns", "c"), fixed_gpus=None)
    planner.happen(Seen(stranger))
    planner.lands()
    assert under_way(planner).reserved == ()
    planner.happen(Seen(attrs.evolve(stranger, fixed_gpus=0)))
    assert told(planner.happen(Ticked(1.0))) == ["apply a 5"]


def test_the_sentence_names_every_pool() -> None:
    steps = [Step((Change.of(pool(text), 0),)) for text in ("a/prefill 1x1", "b/decode 1x1")]
    assert changed_meanwhile(steps) == "ns/a/prefill, ns/b/decode was changed by somebody else meanwhile"
