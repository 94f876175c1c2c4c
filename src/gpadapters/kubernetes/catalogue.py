"""Where the API server serves Dynamo's objects, and what its refusals say.

Rules of this file: a version is looked up, never assumed; paths are made nowhere else.
"""

from gpadapters.kubernetes.schema import Refusal, Served, decode
from gpadapters.kubernetes.session import Answer, Session
from gpcore.errors import ObserveError

GRAPHS = "dynamographdeployments"
ADAPTERS = "dynamographdeploymentscalingadapters"
VERSIONS = ("v1beta1", "v1alpha1")
"""The versions that are understood, the preferred one first."""

OK = 200
FORBIDDEN = 403
NOT_FOUND = 404

_GROUP = "/apis/nvidia.com"
_LONGEST = 500  # characters of a server's message that are passed on


class ForbiddenError(ObserveError):
    """This account may not read what it asked for."""


class Catalogue:
    """Which version of each kind of object the API server serves."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._versions: dict[str, str] = {}

    def path(self, plural: str, namespace: str, name: str | None = None) -> str:
        """Return the path of a collection, or of one object, in the version that was found last."""
        base = f"{_GROUP}/{self._versions.get(plural, VERSIONS[0])}/namespaces/{namespace}/{plural}"
        return base if name is None else f"{base}/{name}"

    async def find(self, plural: str) -> bool:
        """Find the version to use for *plural*, and say whether there is one."""
        for version in VERSIONS:
            answer = await self._session.request("GET", f"{_GROUP}/{version}")
            if answer.status not in (OK, NOT_FOUND):
                raise ObserveError(refusal(answer).message)
            if answer.status == OK and any(one.name == plural for one in decode(Served, answer.body).resources):
                self._versions[plural] = version
                return True
        return False


def granted(answer: Answer) -> Answer:
    """Return *answer*, which gives what was asked for, or raise what it refuses with."""
    if answer.status == OK:
        return answer
    message = refusal(answer).message
    raise ForbiddenError(message) if answer.status == FORBIDDEN else ObserveError(message)


def refusal(answer: Answer) -> Refusal:
    """Return what the server said with an error, in one line with its status."""
    try:
        said = decode(Refusal, answer.body)
    except ValueError:
        said = Refusal(message=answer.body[:_LONGEST].decode(errors="replace"))
    text = "".join(c if c.isprintable() else " " for c in said.message)[:_LONGEST]
    said.message = f"{answer.status} {said.reason}: {text}".replace(" :", ":")
    return said
