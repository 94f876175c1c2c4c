"""What the body of a request says that matters to the router.

Rules of this file: pure; only the named fields are read, the rest of the body stays bytes; whatever the bytes are, the
result is an `Ask` or a `Refusal`.
"""

from typing import Any, NamedTuple

import msgspec

from gpadapters.router import refusals
from gpadapters.router.refusals import Refusal
from gpcore.targets import Sourced, target

_MOST_TOKENS = 1 << 31


class _Targets(msgspec.Struct, gc=False):
    ttft_target: Any = None
    itl_target: Any = None


class _Hints(msgspec.Struct, gc=False):
    priority: Any = None


class _Extension(msgspec.Struct, gc=False):
    router: _Targets | None = None
    agent_hints: _Hints | None = None
    extra_args: _Targets | None = None


class Ask(msgspec.Struct, gc=False):
    """The fields of a request that decide where it goes and how its answer comes."""

    model: str
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    nvext: _Extension | None = None
    extra_args: _Targets | None = None


class Wish(NamedTuple):
    """The targets of one request, as they were said and by what, and its priority."""

    ttft: Sourced
    itl: Sourced
    priority: object = None


class Defaults(NamedTuple):
    """The targets of requests that name none, as the command line has them; None is the middle of the range."""

    ttft_ms: float | None = None
    itl_ms: float | None = None

    def wish(self) -> Wish:
        """Return what a request wishes that says nothing, as most do."""
        return Wish(target(default=self.ttft_ms), target(default=self.itl_ms))


_NO_TARGETS = _Targets()
_NO_EXTENSION = _Extension()
_decode = msgspec.json.Decoder(Ask).decode


def read(body: bytes) -> Ask | Refusal:
    """Read the fields of *body* that matter."""
    try:
        ask = _decode(body)
    except msgspec.ValidationError as error:
        return refusals.invalid(str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return refusals.NOT_JSON
    if ask.max_tokens is not None or ask.max_completion_tokens is not None:
        return _bounded(ask)
    return ask


def wish(ask: Ask, ttft: bytes | None, tpot: bytes | None, *, defaults: Defaults) -> Wish:
    """Return what *ask* and the two headers ask for."""
    extension = ask.nvext or _NO_EXTENSION
    router = extension.router or _NO_TARGETS
    legacy = extension.extra_args or ask.extra_args or _NO_TARGETS
    return Wish(
        target(header=_text(ttft), nvext=router.ttft_target, extra_args=legacy.ttft_target, default=defaults.ttft_ms),
        target(header=_text(tpot), nvext=router.itl_target, extra_args=legacy.itl_target, default=defaults.itl_ms),
        extension.agent_hints.priority if extension.agent_hints is not None else None,
    )


def _bounded(ask: Ask) -> Ask | Refusal:
    for name in ("max_tokens", "max_completion_tokens"):
        value = getattr(ask, name)
        if value is not None and not 0 <= value < _MOST_TOKENS:
            return refusals.invalid(f"{name} must be between 0 and {_MOST_TOKENS - 1}", name)
    return ask


def _text(header: bytes | None) -> str | None:
    return None if header is None else header.strip().decode("ascii", "replace")
