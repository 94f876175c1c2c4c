from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from gpcore.indexes import Index, amended

KEYS = st.integers(0, 600)  # more than there are parts, so that some are shared
ITEMS = st.dictionaries(KEYS, st.integers(0, 9), max_size=40)
CHANGES = st.dictionaries(KEYS, st.none() | st.integers(0, 9), max_size=10)


def changed(items: Mapping[int, int], changes: Mapping[int, int | None]) -> dict[int, int]:
    return {key: value for key, value in {**items, **changes}.items() if value is not None}


@given(items=ITEMS, key=KEYS, value=st.integers(0, 9))
def test_an_index_is_a_mapping_whose_older_versions_stay(items: dict[int, int], key: int, value: int) -> None:
    index = Index(items.items())
    put, dropped = index.put(key, value), index.drop(key)
    assert dict(put.items()) == {**items, key: value}
    assert dict(dropped.items()) == {one: items[one] for one in items if one != key}
    assert dict(index.items()) == items
    assert (len(put), len(dropped), len(index)) == (len({**items, key: 0}), len({*items} - {key}), len(items))


@given(items=ITEMS, changes=CHANGES)
def test_several_changes_at_once_are_those_changes_one_by_one(
    items: dict[int, int], changes: dict[int, int | None]
) -> None:
    index = Index(items.items())
    replaced = index.replaced(changes)
    assert dict(replaced.items()) == changed(items, changes)
    assert replaced == Index(changed(items, changes).items())
    assert len(replaced) == len(changed(items, changes))
    assert dict(index.items()) == items


@given(items=ITEMS, changes=CHANGES)
def test_what_changed_is_told_and_nothing_else(items: dict[int, int], changes: dict[int, int | None]) -> None:
    before = Index(items.items())
    after = before.replaced(changes)
    differing = {key for key, value in changes.items() if items.get(key) != value}
    assert after.changed(before) == before.changed(after) == differing
    assert Index(after.items()).changed(before) == differing


@given(items=ITEMS, key=KEYS)
def test_what_is_asked_is_answered_as_by_a_dict(items: dict[int, int], key: int) -> None:
    index = Index(items.items())
    assert index.get(key) == items.get(key)
    assert (key in index) == (key in items)
    assert sorted(index) == sorted(items)
    assert sorted(index.values()) == sorted(items.values())
    assert all(index[one] == value for one, value in items.items())


@given(items=ITEMS)
def test_equal_contents_are_equal_however_they_came_about(items: dict[int, int]) -> None:
    index: Index[int, int] = Index()
    for key in sorted(items, reverse=True):
        index = index.put(key, 0).put(key, items[key])
    assert index == Index(items.items())
    assert hash(index) == hash(Index(items.items()))
    assert index != dict(items)


def test_of_two_with_one_key_the_later_is_held() -> None:
    assert dict(Index([("a", 1), ("a", 2)]).items()) == {"a": 2}


def test_keys_that_share_a_part_are_all_held() -> None:
    assert dict(Index([(1, "a"), (257, "b")]).items()) == {1: "a", 257: "b"}


def test_an_index_shows_what_it_holds() -> None:
    assert repr(Index([("a", 1)])) == "Index({'a': 1})"


def test_a_small_mapping_is_amended_in_its_order_and_stays_as_it_was() -> None:
    known = {"b": 1, "a": 2}
    assert list(amended(known, {"c": 3, "b": 4, "a": None, "d": None}).items()) == [("b", 4), ("c", 3)]
    assert known == {"b": 1, "a": 2}
