"""The exceptions of this package.

Rules of this file: a refusal is a value (see `decisions`), never an exception. What is raised is either somebody's
mistake in a value or a file (`InvalidError`), or the world failing behind a port (`PortError`).
"""

from collections.abc import Iterable


class GpcoreError(Exception):
    """Root of everything that this project raises on purpose."""


class InvalidError(GpcoreError, ValueError):
    """Say everything that is wrong with one value, message or file, all at once.

    *problems* are sentences, each naming the thing, the value and the bound.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class MalformedError(InvalidError):
    """The bytes are not the JSON that was promised: not decodable, ambiguous, or beyond the reader's limits."""


class ConfigError(InvalidError):
    """A configuration contradicts itself or the schema; nothing was started with it."""


class PortError(GpcoreError):
    """The world behind a port failed; the shell turns it into an event."""


class ObserveError(PortError):
    """The cluster could not be read, so what is known may be out of date."""


class MissingError(PortError):
    """What is asked for is not served here at all, or may not be read; asking again later changes nothing."""
