"""The short way of reading a message never reads it otherwise than the parser does."""

import httptools
from hypothesis import example, given
from hypothesis import strategies as st

from gpadapters.router.heads import Headers, read_answer, read_request
from gpadapters.router.plain import plain_answer, plain_request
from gpadapters.router.settings import Limits

LIMITS = Limits()
NAMES = ["Host", "host", "Content-Length", "Content-Type", "Connection", "Transfer-Encoding", "X-A", "x-gp-pool", "TE"]
NAMES += [
    "Accept-Encoding",
    "Authorization",
    "Expect",
    "Upgrade",
    "x-slo-ttft-ms",
    "X-SLO-TPOT-ms",
    "Keep-Alive",
    "X_b",
    "Set-Cookie",
]
VALUES = ["r", "2", "0", "02", "+2", "application/json", "text/plain", "keep-alive", "close", "X-A", "chunked", ""]
VALUES += ["a b", "a\tb", "\xe9", "a\rb", "a\nb", "identity", " 2", "2 ", "2,2", "text/event-stream"]
BODIES = ["", "{}", "{}\r\n\r\n", "{}{}", "2\r\n{}\r\n0\r\n\r\n"]
lines = st.tuples(st.sampled_from(NAMES), st.sampled_from([": ", ":", " : ", ":  "]), st.sampled_from(VALUES))
ordinary = st.just([("Host", ": ", "r"), ("Content-Length", ": ", "2")])


class _Parsed:
    """What the parser makes of bytes."""

    def __init__(self) -> None:
        self.headers: Headers = []
        self.target = b""
        self.body = b""
        self.ended = 0

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.ended += 1


def _message(first: str, headers: list[tuple[str, str, str]], body: str) -> bytes:
    head = "".join(f"{name}{colon}{value}\r\n" for name, colon, value in headers)
    return f"{first}\r\n{head}\r\n{body}".encode("latin-1")


@given(ordinary | st.just([]), st.lists(lines, max_size=4), st.sampled_from(BODIES))
@example([("Host", ": ", "r"), ("Content-Length", ": ", "2")], [("Host", ": ", "r")], "{}")
@example([("Host", ": ", "r"), ("Content-Length", ": ", "2")], [("x-slo-ttft-ms", ": ", "2")], "{}")
def test_a_request_read_the_short_way_is_what_the_parser_reads(
    before: list[tuple[str, str, str]], more: list[tuple[str, str, str]], body: str
) -> None:
    data = _message("POST /v1/completions HTTP/1.1", before + more, body)
    plain = plain_request(data, LIMITS)
    if plain is None:
        return
    parsed = _Parsed()
    httptools.HttpRequestParser(parsed).feed_data(data)
    head = read_request(parsed.headers, LIMITS)
    assert (plain.target, plain.body, parsed.ended) == (parsed.target, parsed.body, 1)
    assert (plain.head.lines, plain.head.close, plain.head.json) == (head.lines, head.close, head.json)
    assert head.coded == 0
    assert (plain.head.ttft, plain.head.tpot, head.expects) == (head.ttft, head.tpot, False)


@given(ordinary | st.just([]), st.lists(lines, max_size=4), st.sampled_from(BODIES))
def test_an_answer_read_the_short_way_is_what_the_parser_reads(
    before: list[tuple[str, str, str]], more: list[tuple[str, str, str]], body: str
) -> None:
    data = _message("HTTP/1.1 200 OK", before + more, body)
    plain = plain_answer(data)
    if plain is None:
        return
    parsed = _Parsed()
    httptools.HttpResponseParser(parsed).feed_data(data)
    head = read_answer(parsed.headers, LIMITS)
    assert (plain[1], parsed.ended) == (parsed.body, 1)
    assert (plain[0].lines, plain[0].length, plain[0].stream) == (head.lines, head.length, head.stream)


def test_the_request_of_a_common_client_is_read_the_short_way() -> None:
    headers = "Host: r\r\nAuthorization: Bearer x\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
    plain = plain_request(f"POST /v1/completions HTTP/1.1\r\n{headers}Content-Length: 2\r\n\r\n{{}}".encode(), LIMITS)
    assert plain is not None
    assert plain.head.lines == b"authorization: Bearer x\r\n"


def test_what_the_short_way_remembers_is_bounded() -> None:
    for number in range(20_000):
        data = f"POST /v1/completions HTTP/1.1\r\nHost: r\r\nX-Id: {number}\r\nContent-Length: 0\r\n\r\n".encode()
        plain = plain_request(data, LIMITS)
        assert plain is not None
        assert plain.head.lines == f"x-id: {number}\r\n".encode()
