"""The exact length of an input, with a tokenizer of this machine: the extra `tokenizers`.

Rules of this file: counting blocks the loop, so it is for bodies of a bounded size; what is longer, or is not text, is
guessed as without a tokenizer. The template of a chat is not known here: each message is taken to cost a few tokens.
"""

from pathlib import Path
from typing import Protocol

import msgspec

from gpadapters.router.settings import KIB
from gpcore.errors import ConfigError

EXACT_BYTES = 64 * KIB
"""The largest body that is counted: some milliseconds."""

_PER_MESSAGE = 4


class Count(Protocol):
    """Count the tokens of a request."""

    def __call__(self, body: bytes, /) -> int | None:
        """Return how many tokens the input in *body* has, or None if that cannot be told here."""
        ...


class _Part(msgspec.Struct, gc=False):
    type: str = "text"
    text: str = ""


class _Message(msgspec.Struct, gc=False):
    content: str | list[_Part] | None = None


class _Input(msgspec.Struct, gc=False):
    messages: list[_Message] = []
    prompt: str | list[str] = ""
    input: str | list[str] = ""


_decode = msgspec.json.Decoder(_Input).decode


def counter(path: Path) -> Count:
    """Return what counts with the tokenizer in the file *path* (a `tokenizer.json`)."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - an extra of its own, for those who count exactly

    try:
        encode = Tokenizer.from_file(str(path)).encode
    except Exception as error:  # the library raises nothing more precise
        raise ConfigError([f"{path} is no tokenizer: {error}"]) from error

    def count(body: bytes, /) -> int | None:
        found = texts(body)
        if found is None:
            return None
        each, extra = found
        return extra + sum(len(encode(text, add_special_tokens=False).ids) for text in each)

    return count


def texts(body: bytes) -> tuple[list[str], int] | None:
    """Return the texts of the input in *body*, and the tokens that are not in them; None if it is not only text."""
    if len(body) > EXACT_BYTES:
        return None
    try:
        asked = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    found: list[str] = []
    for message in asked.messages:
        content = message.content
        if isinstance(content, str):
            found.append(content)
        elif any(part.type != "text" for part in content or ()):
            return None
        else:
            found.extend(part.text for part in content or ())
    for more in (asked.prompt, asked.input):
        found.extend([more] if isinstance(more, str) else more)
    return [text for text in found if text], _PER_MESSAGE * len(asked.messages)
