import enum

import pytest

from gpcore.errors import InvalidError, MalformedError
from gpcore.wire.documents import MAX_DIGITS, Extras, Node, Reading, certain, dumps, loads, shown


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


def node(value: object, extras: Extras = Extras.REFUSED) -> Node:
    return Reading(extras).root(value)


def test_a_document_is_read_as_what_it_says() -> None:
    assert loads(b' {"a": [1, 2.5, true, null, "\\u00e9\\ud83d\\ude00"], "b": {"c": -7}}\n') == {
        "a": [1, 2.5, True, None, "é😀"],
        "b": {"c": -7},
    }
    assert loads(b"17") == 17


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b"{", "not JSON: Expecting property name enclosed in double quotes, line 1 column 2"),
        (b'{"a":1} x', "not JSON: Extra data, line 1 column 9"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8: byte 0 cannot be decoded"),
        (b'"\xed\xa0\x80"', "not UTF-8: byte 1 cannot be decoded"),
        (b"\xef\xbb\xbf{}", "not JSON: Expecting value, line 1 column 1"),
        (b'{"a":NaN}', "not JSON: NaN"),
        (b"[-Infinity]", "not JSON: -Infinity"),
        (b'{"n":1,"n":99}', 'the key "n" is there twice'),
        (b'"\\ud800"', "not Unicode text: half a surrogate pair"),
        (b'{"\\udfff":1}', "not Unicode text: half a surrogate pair"),
        (b"9" * 5000, "an integer of 5000 digits"),
        (b"9" * (MAX_DIGITS + 1), f"an integer of {MAX_DIGITS + 1} digits"),
        (b"1e999", 'the number "1e999" is too large'),
        (b"[" * 17 + b"]" * 17, "nested more than 16 deep"),
        (b"[" * 100_000, "nested more than 16 deep"),
        (b'{"a":' * 100_000, "nested more than 16 deep"),
        (b'"' + b"[" * 17 + b"]", "nested more than 16 deep"),
    ],
)
def test_what_is_not_one_clear_document_is_malformed(data: bytes, problem: str) -> None:
    with pytest.raises(MalformedError) as caught:
        loads(data)
    assert caught.value.problems[0].startswith(problem)


def test_brackets_in_strings_and_beside_each_other_do_not_nest() -> None:
    assert loads(b'"' + b"[" * 40 + b'"') == "[" * 40
    assert loads(b"[" + b",".join([b'["\\"{"]'] * 20) + b"]") == [['"{']] * 20
    assert loads(b"[" * 16 + b"]" * 16 + b" " * 9) is not None


def test_the_longest_integer_is_read_and_minus_zero_is_no_integer() -> None:
    assert loads(b"9" * MAX_DIGITS) == int("9" * MAX_DIGITS)
    assert str(loads(b"-0")) == "-0.0"


def test_what_is_written_is_one_line_of_ascii() -> None:
    assert dumps({"a": ["é\n", 1, None]}) == b'{"a":["\\u00e9\\n",1,null]}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (3.5, "3.5"),
        ("a\x1b[0m\u202e", '"a\\u001b[0m\\u202e"'),
        ("x" * 200, '"' + "x" * 79 + "..."),
        ([1, 2], "a list of 2"),
        ({}, "an object"),
    ],
)
def test_a_value_is_shown_in_a_few_plain_characters(value: object, text: str) -> None:
    assert shown(value) == text


def test_every_problem_is_listed_with_its_path() -> None:
    root = node({"n": "5", "list": {}, "word": "maybe", "text": 3, "flag": 1, "low": -1, "new": 0})
    fields = root.fields(("n", "list", "word", "text", "flag", "gone"), ("low", "null"))
    assert fields["n"].integer() is None
    assert list(fields["list"].items()) == []
    assert fields["word"].one_of(tuple(Word)) is None
    assert fields["text"].built(str) is None
    assert not fields["flag"].boolean()
    assert fields["low"].integer() is None
    assert fields["gone"].integer() is None
    with pytest.raises(InvalidError) as caught:
        root.reading.finish()
    assert caught.value.problems == (
        '$: unknown field "new"',
        "$: gone is missing",
        '$.n: must be an integer: "5"',
        "$.list: must be a list: an object",
        "$.word: must be one of 'yes', 'no': \"maybe\"",
        "$.text: must be a string: 3",
        "$.flag: must be true or false: 1",
        "$.low: must be at least 0: -1",
    )


def test_what_is_as_asked_is_returned() -> None:
    root = node(
        {"n": 5, "list": [1, 2], "word": "yes", "text": "x", "flag": True, "number": 2, "extra": 1}, Extras.IGNORED
    )
    fields = root.fields(("n", "list", "word", "text", "flag", "number"))
    assert fields["n"].integer(high=5) == 5
    assert [item.path for item in fields["list"].items(high=2)] == ["$.list[0]", "$.list[1]"]
    assert fields["word"].one_of(tuple(Word)) is Word.YES
    assert fields["text"].built(str.upper) == "X"
    assert fields["flag"].boolean()
    assert fields["number"].number(low=2) == 2.0
    root.reading.finish()
    assert certain(5) == 5


def test_bounds_and_kinds_are_kept() -> None:
    root = node({"n": 6, "list": [1, 2, 3], "number": 1, "text": "no number"})
    fields = root.fields(("n", "list", "number", "text"))
    assert fields["n"].integer(high=5) is None
    assert list(fields["list"].items(low=1, high=2)) == []
    assert fields["number"].number(low=2) == 0.0
    assert fields["text"].number() == 0.0
    assert root.reading.problems == [
        "$.n: must be between 0 and 5: 6",
        "$.list: must have 1 to 2 items: 3",
        "$.number: must be at least 2: 1",
        '$.text: must be a number: "no number"',
    ]


def test_something_else_than_an_object_is_one_problem_and_not_one_for_each_field() -> None:
    root = node([])
    fields = root.fields(("a", "b"))
    fields["a"].integer()
    assert root.reading.problems == ["$: must be an object: a list of 0"]


def test_of_very_many_problems_the_first_are_listed() -> None:
    root = node({f"field{n}": n for n in range(5000)})
    root.fields(())
    with pytest.raises(InvalidError) as caught:
        root.reading.finish()
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "and 4980 more"


def test_nothing_is_certain_where_nothing_was_built() -> None:
    with pytest.raises(AssertionError):
        certain(None)
