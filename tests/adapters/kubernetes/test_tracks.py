"""What is shown of an object never goes back, however lists, watches and answers overtake each other."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpadapters.kubernetes.objects import Graph, Identity
from gpadapters.kubernetes.tracks import Track
from gpcore.pools import ParticipantId

KEY = ("ns", "a")


@attrs.frozen
class Revision:
    """One state in the life of the objects of one name; *graph* None: deleted."""

    number: int
    graph: Graph | None
    last: Graph


def graph(number: int, *, uid: str = "u1", generation: int = 1, name: str = "a") -> Graph:
    return Graph(ParticipantId("ns", name), Identity(uid, f"v{number}", generation))


@st.composite
def lives(draw: st.DrawFn) -> list[Revision]:
    """Give a life: writes of the spec, of the status, deletions and creations anew, one revision each."""
    revisions = [Revision(0, graph(0), graph(0))]
    kinds = st.sampled_from(["spec", "status", "status", "gone"])
    for number, kind in enumerate(draw(st.lists(kinds, max_size=8)), start=1):
        before = revisions[-1]
        identity = before.last.identity
        if before.graph is None:
            new = graph(number, uid=f"u{number}")
        elif kind == "gone":
            gone = graph(number, uid=identity.uid, generation=identity.generation + 1)
            revisions.append(Revision(number, None, gone))
            continue
        else:
            new = graph(number, uid=identity.uid, generation=identity.generation + (kind == "spec"))
        revisions.append(Revision(number, new, new))
    return revisions


def number_of(known: Graph | None, life: list[Revision]) -> int:
    assert known is not None
    return next(one.number for one in life if one.graph == known)


ACTIONS = st.tuples(st.sampled_from(["happen", "ask", "hear", "watch"]), st.integers(0, 7))


@given(lives(), st.lists(ACTIONS, max_size=24))
def test_nothing_that_is_shown_is_older_than_what_was_shown_before(
    life: list[Revision], actions: list[tuple[str, int]]
) -> None:
    """The watch delivers in order; each request of ours is answered with what is true between asking and hearing."""
    track: Track[Graph] = Track()
    track.listed("ns", [graph(0)])
    happened = delivered = newest = 0
    asked: list[tuple[int, int]] = []  # what had happened, and the moment
    for action, choice in [*actions, *([("happen", 7), ("watch", 0)] * len(life))]:
        if action == "happen":
            happened = min(happened + choice, len(life) - 1)
        elif action == "ask":
            asked.append((happened, track.moment))
        elif action == "hear" and asked:
            earliest, since = asked.pop(choice % len(asked))
            answer = life[earliest + choice % (happened + 1 - earliest)]
            if answer.graph is not None:
                track.answered(answer.graph, since=since)
        elif action == "watch" and delivered < happened:
            delivered += 1
            revision = life[delivered]
            (track.removed if revision.graph is None else track.seen)(revision.last)
        known = track.get(KEY)
        if known is not None:
            assert number_of(known, life) >= newest
            newest = number_of(known, life)
        else:
            assert any(one.graph is None and one.number >= newest for one in life[: happened + 1])
    assert track.get(KEY) == life[-1].graph


@given(lives(), st.data())
def test_a_list_makes_up_for_everything_that_was_missed(life: list[Revision], data: st.DataObject) -> None:
    track: Track[Graph] = Track()
    track.listed("ns", [graph(0)])
    for revision in life[1:]:
        if data.draw(st.booleans()):
            (track.removed if revision.graph is None else track.seen)(revision.last)
        elif data.draw(st.booleans()) and revision.graph is not None:
            track.answered(revision.graph, since=track.moment)
    last = life[-1].graph
    track.listed("ns", [] if last is None else [last])
    assert track.get(KEY) == last


def test_the_answer_to_our_own_write_overtakes_the_watch() -> None:
    track: Track[Graph] = Track()
    track.listed("ns", [graph(0)])
    assert track.answered(graph(2, generation=2), since=1)
    assert not track.seen(graph(1))
    assert not track.seen(graph(2, generation=2))
    assert track.seen(graph(3, generation=2))
    assert track.get(KEY) == graph(3, generation=2)


def test_an_answer_that_the_watch_has_overtaken_is_ignored() -> None:
    track: Track[Graph] = Track()
    track.listed("ns", [graph(0)])
    track.seen(graph(1, generation=2))
    track.seen(graph(2, generation=2))
    assert not track.answered(graph(1, generation=2), since=1)


def test_an_answer_that_a_list_has_overtaken_is_ignored() -> None:
    track: Track[Graph] = Track()
    track.listed("ns", [graph(0)])
    asked = track.moment
    track.listed("ns", [graph(2)])
    assert not track.answered(graph(1), since=asked)


def test_of_two_answers_that_overtake_each_other_just_one_is_taken_in_and_the_other_is_known_to_be_unknown() -> None:
    track: Track[Graph] = Track()
    track.listed("ns", [graph(0)])
    asked = track.moment
    assert track.answered(graph(1), since=asked)
    assert not track.answered(graph(2), since=asked)
    assert [track.has_taken(graph(number)) for number in range(3)] == [True, True, False]
    assert track.answered(graph(2), since=track.moment)


def test_an_answer_about_another_object_overtakes_nothing() -> None:
    track: Track[Graph] = Track()
    track.listed("ns", [graph(0), graph(1, name="b", uid="u2")])
    asked = track.moment
    assert track.answered(graph(2, name="b", uid="u2"), since=asked)
    assert track.answered(graph(3), since=asked)


def test_what_was_deleted_does_not_come_back_but_its_successor_comes() -> None:
    track: Track[Graph] = Track()
    track.listed("ns", [graph(0)])
    assert track.missing(KEY, "u1") == {ParticipantId("ns", "a")}
    assert not track.seen(graph(1))
    assert not track.listed("ns", [graph(1)])
    assert track.seen(graph(2, uid="u2"))
    assert not track.missing(KEY, "u1")


def test_a_list_of_one_namespace_says_nothing_of_another() -> None:
    track: Track[Graph] = Track()
    track.listed("ns", [graph(0), graph(1, name="b", uid="u2")])
    track.listed("other", [])
    assert track.of(ParticipantId("ns", "a")) == (graph(0),)
    assert track.listed("ns", [graph(0)]) >= {ParticipantId("ns", "b")}
    assert set(track.participants()) == {ParticipantId("ns", "a")}
