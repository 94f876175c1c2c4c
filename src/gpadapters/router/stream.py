"""What passes by in an answer: events and tokens, counted without holding the answer up.

Rules of this file: pure; bytes are looked at and never changed; only the end is kept, because that is where an engine
says how many tokens there were.
"""

import re

_EVENT = b"\ndata:"
_BEFORE = len(_EVENT) - 1
_END = b"[DONE]"
_USAGE = b'"usage"'
_PROMPT = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,9})')
_COMPLETION = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,9})')
_USUAL = re.compile(
    rb'"usage"\s*:\s*\{\s*"prompt_tokens"\s*:\s*(\d{1,9})\s*,'
    rb'\s*(?:"total_tokens"\s*:\s*\d+\s*,\s*)?"completion_tokens"\s*:\s*(\d{1,9})'
)
"""The order in which all known engines write it."""
_SPAN = 1024
_KEPT = 1536


class Tap:
    """Count the events of one stream."""

    __slots__ = ("_tail", "events")

    def __init__(self) -> None:
        """Begin before the first byte."""
        self.events = 0
        self._tail = b"\n"

    def passed(self, data: bytes) -> int:
        """Look at *data* and return how many events began in it."""
        tail = self._tail
        joined = tail + data
        count = joined.count(_EVENT, max(len(tail) - _BEFORE, 0))
        self._tail = joined[-_KEPT:]
        self.events += count
        return count

    def tokens(self) -> tuple[int | None, int]:
        """Return the tokens of the prompt, if the engine said so, and of the answer: said, or one an event."""
        prompt, completion = usage(self._tail)
        return prompt, self.events - (_END in self._tail) if completion is None else completion


def usage(data: bytes) -> tuple[int | None, int | None]:
    """Return the tokens of the prompt and of the completion that the end of *data* tells.

    >>> usage(b'..."usage":{"prompt_tokens":12,"total_tokens":15,"completion_tokens":3}}')
    (12, 3)
    """
    at = data.rfind(_USAGE)
    if at < 0:
        return None, None
    usual = _USUAL.match(data, at)
    if usual is not None:
        return int(usual[1]), int(usual[2])
    prompt, completion = _PROMPT.search(data, at, at + _SPAN), _COMPLETION.search(data, at, at + _SPAN)
    return int(prompt[1]) if prompt else None, int(completion[1]) if completion else None
