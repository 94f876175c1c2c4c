"""What the API server lets this account do, and what follows where it does not.

Rules of this file: what can be tried is tried, and the answer is believed: lists and watches tell by themselves.
Whether we may write is asked by a SelfSubjectAccessReview, since trying would write. Where even that is not answered,
we go on as if we may, and the first write tells.
"""

import http
import logging
from collections.abc import Mapping

import attrs
import msgspec

from gpadapters.kubernetes.catalogue import ADAPTERS, GRAPHS
from gpadapters.kubernetes.pods import PODS
from gpadapters.kubernetes.schema import Review, decode
from gpadapters.kubernetes.session import JSON, LostError, Session
from gpcore.conditions import Condition

log = logging.getLogger(__name__)

LIST, WATCH, PATCH, CREATE = "list", "watch", "patch", "create"

EVENTS = "events"

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_NOTHING_KNOWN = "list_forbidden", "nothing can be decided"
_LISTED_INSTEAD = "watch_forbidden", "they are listed every few seconds and before each decision instead"
_UNREAD = "adapters_unreadable", "components that have one are counted by what their deployment says, and not scaled"
_UNWRITTEN = "write_forbidden", "components whose replicas are written there are counted, and not scaled"
_FOLLOWS: Mapping[tuple[str, str], tuple[str, str]] = {
    (LIST, GRAPHS): _NOTHING_KNOWN,
    (LIST, ADAPTERS): _UNREAD,
    (WATCH, GRAPHS): _LISTED_INSTEAD,
    (WATCH, ADAPTERS): _LISTED_INSTEAD,
    (LIST, PODS): ("pods_unreadable", "nothing can be decided while releases are to be confirmed by pods"),
    (WATCH, PODS): _LISTED_INSTEAD,
    (CREATE, EVENTS): ("events_forbidden", "what the planner did, and what holds it back, is in its logs alone"),
    (PATCH, GRAPHS): _UNWRITTEN,
    (PATCH, ADAPTERS): _UNWRITTEN,
}
"""What it is called that a right is missing, and what follows."""


@attrs.frozen(order=True)
class Right:
    """To do *verb* to the objects *plural* of *group* in *namespace*."""

    verb: str
    plural: str
    namespace: str
    group: str = "nvidia.com"

    def __str__(self) -> str:
        return f"{self.verb} {self.plural} in namespace {self.namespace}"


class Rights:
    """Hold which of the rights that the planner wants are missing, as far as it is known."""

    def __init__(self) -> None:
        self._missing: set[Right] = set()

    def __contains__(self, right: Right) -> bool:
        """Say whether *right* is there, or at least not known to be missing."""
        return right not in self._missing

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Return what is missing, each with what follows."""
        return tuple(_condition(right) for right in sorted(self._missing))

    def learn(self, right: Right, *, granted: bool) -> bool:
        """Take note of whether *right* is *granted*, loudly where it is not, and say whether that is new."""
        if granted is (right in self):
            return False
        if granted:
            self._missing.discard(right)
            log.info("the right to %s is there now", right)
        else:
            self._missing.add(right)
            log.warning("MISSING RIGHT, apply what `gpctl manifests planner` prints: %s", _condition(right).detail)
        return True


async def allowed(session: Session, right: Right) -> bool:
    """Ask the API server whether *right* is granted; True where it does not say."""
    try:
        answer = await session.request("POST", _REVIEWS, body=_review(right), content_type=JSON)
        return answer.status != http.HTTPStatus.CREATED or decode(Review, answer.body).status.allowed
    except (LostError, ValueError):
        return True


def _condition(right: Right) -> Condition:
    kind, follows = _FOLLOWS[right.verb, right.plural]
    return Condition(kind, f"not allowed to {right}: {follows}")


def _review(right: Right) -> bytes:
    attributes = {
        "namespace": right.namespace,
        "verb": right.verb,
        "group": right.group,
        "resource": right.plural,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    return msgspec.json.encode(review)
