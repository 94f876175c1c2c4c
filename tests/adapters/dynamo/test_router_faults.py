import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpadapters.dynamo.router_faults import Kind, fault

WORDS = st.sampled_from(
    [
        "BackendUnknown",
        "BackendInvalidArgument",
        "ValueError",
        "Exception",
        "InvalidRequest",
        "Disconnected",
        "Internal",
    ]
)


@given(st.one_of(st.text(), st.lists(WORDS).map(": ".join), st.text().map(lambda text: f'{{"code": {text}')))
def test_any_text_is_some_fault_with_an_http_status_of_an_error(text: str) -> None:
    assert 400 <= fault(text).status < 600


@given(st.lists(WORDS, max_size=5), st.sampled_from(["Disconnected", "Unknown", "InvalidArgument"]))
def test_whoever_it_passed_the_last_category_is_the_true_one(words: list[str], last: str) -> None:
    passed = "".join(f"{word}: " for word in words)
    assert fault(f"{passed}{last}: gone").kind is fault(f"{last}: gone").kind


@pytest.mark.parametrize(
    ("text", "kind", "status"),
    [
        # What both versions of the runtime were seen to raise.
        ("Connection refused (os error 111)", Kind.UNREACHABLE, 502),
        ("CannotConnect: TCP request to 127.0.0.1:46373 failed", Kind.UNREACHABLE, 502),
        ("Unavailable: TCP connection to 127.0.0.1:42905 failed", Kind.UNREACHABLE, 502),
        ("Unavailable: No workers available for endpoint pool-0/router/generate", Kind.NO_REPLICA, 503),
        ("BackendUnknown: Exception: no endpoints available to route work", Kind.NO_REPLICA, 503),
        ("BackendUnknown: Exception: Connection refused (os error 111)", Kind.FAILED, 502),
        ("BackendUnknown: AttributeError: 'NoneType' object has no attribute 'get'", Kind.FAILED, 502),
        ("Disconnected: Stream ended before generation completed", Kind.FAILED, 502),
        ("Unavailable: Stream ended before generation completed", Kind.FAILED, 503),
        ("BackendInvalidArgument: ValueError: Disconnected: Stream ended", Kind.FAILED, 502),
        ("Internal: RuntimeError: bad thing", Kind.FAILED, 502),
        ("BackendCancelled: bad thing", Kind.FAILED, 502),
        ("BackendInvalidArgument: ValueError: bad thing", Kind.REFUSED, 400),
        ("InvalidRequest: ValueError: bad thing", Kind.REFUSED, 400),
        ('BackendInvalidArgument: {"message":"slow down","code":429}', Kind.REFUSED, 429),
        ('RateLimited: {"message":"slow down","code":429}', Kind.REFUSED, 429),
        ('Unavailable: {"message":"later","code":503}', Kind.FAILED, 503),
        ("BackendUnknown: CannotConnect: its own worker", Kind.FAILED, 502),
        ("Internal: Exception: Unavailable: TCP connection to 127.0.0.1:1 failed", Kind.FAILED, 503),
        ('{"code": "x"}', Kind.FAILED, 502),
        ("{not json", Kind.FAILED, 502),
        ("", Kind.FAILED, 502),
    ],
)
def test_what_a_failure_means(text: str, kind: Kind, status: int) -> None:
    found = fault(text)
    assert (found.kind, found.status) == (kind, status)
    assert found.elsewhere == (kind is not Kind.REFUSED)


def test_the_message_is_without_the_words_of_the_runtime() -> None:
    assert fault("BackendInvalidArgument: ValueError: n is 0").message == "n is 0"
    assert fault('RateLimited: {"message":"slow down","code":429}').message == "slow down"
