"""The one table of HTTP codes: how each way in which a request can end is answered.

Rules of this file: whoever needs a code asks here: the server, the OpenAPI document, the page in `docs/reference`,
and the runner of the corpus of bad requests.
"""

from collections.abc import Mapping
from http import HTTPStatus

import attrs

from gpcore.decisions import (
    AmbiguousName,
    AnotherBody,
    Busy,
    CallerRefused,
    CeilingBreach,
    FloorBreach,
    Frozen,
    LedgerDown,
    LimitReached,
    NotLeading,
    NotReady,
    NotScaled,
    NotYours,
    OldSequence,
    OnePoolTwice,
    PolicyBroken,
    ShapeUnknown,
    UnknownDeployment,
    UnknownPool,
    Unsettled,
    ViewStale,
    WrongComponent,
)


@attrs.frozen
class Code:
    """Answer with *http*, and *status* in the body; *retry_s* says when it may be worth asking again."""

    http: HTTPStatus
    status: str
    meaning: str
    retry_s: int | None = None


def _error(http: HTTPStatus, meaning: str, retry_s: int | None = None) -> Code:
    return Code(http, "error", meaning, retry_s)


CODES: Mapping[str, Code] = {
    "success": Code(HTTPStatus.OK, "success", "Every step is applied, or all is as asked already."),
    "scaling": Code(HTTPStatus.OK, "scaling", "Approved and under way; ask for the operation."),
    CeilingBreach.kind: Code(HTTPStatus.OK, "rejected", "The GPUs would exceed the ceiling."),
    FloorBreach.kind: Code(HTTPStatus.OK, "rejected", "The GPUs would fall below the floor."),
    "malformed": _error(HTTPStatus.BAD_REQUEST, "The body is not one clear JSON object."),
    "bad_request": _error(HTTPStatus.BAD_REQUEST, "The request is not HTTP as it is spoken here; no upgrades."),
    CallerRefused.kind: _error(HTTPStatus.FORBIDDEN, "The caller may not ask for anything."),
    NotYours.kind: _error(HTTPStatus.FORBIDDEN, "The deployment is not managed, or not the caller's."),
    UnknownDeployment.kind: _error(HTTPStatus.NOT_FOUND, "There is no such deployment that the caller may scale."),
    "not_found": _error(HTTPStatus.NOT_FOUND, "There is nothing at this address, or it is not remembered any more."),
    "method_not_allowed": _error(HTTPStatus.METHOD_NOT_ALLOWED, "The address does not take this method."),
    "body_timeout": _error(HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time."),
    ShapeUnknown.kind: Code(HTTPStatus.CONFLICT, "rejected", "The GPUs per replica of a deployment are not known."),
    NotScaled.kind: Code(
        HTTPStatus.CONFLICT, "rejected", "Something keeps the workers from being scaled; it says what."
    ),
    Busy.kind: Code(HTTPStatus.CONFLICT, "rejected", "A pool of the request is being changed already.", 1),
    ViewStale.kind: Code(HTTPStatus.CONFLICT, "rejected", "The cluster is not followed now; nothing may grow.", 5),
    Unsettled.kind: Code(HTTPStatus.CONFLICT, "rejected", "What a pool may have is being put on record.", 1),
    Frozen.kind: Code(HTTPStatus.OK, "rejected", "Such changes are held until a freeze ends."),
    LimitReached.kind: Code(HTTPStatus.OK, "rejected", "As much has changed in this window as may."),
    OldSequence.kind: Code(HTTPStatus.CONFLICT, "rejected", "A later request of the caller was seen before."),
    AmbiguousName.kind: Code(HTTPStatus.CONFLICT, "rejected", "Two deployments derive the caller's name."),
    "body_too_large": _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is larger than 64 KiB."),
    "media_type": _error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body is not application/json in UTF-8."),
    "encoding": _error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body is compressed; send it as it is."),
    "invalid": _error(HTTPStatus.UNPROCESSABLE_ENTITY, "The request contradicts its schema; each problem is listed."),
    UnknownPool.kind: _error(HTTPStatus.UNPROCESSABLE_ENTITY, "The deployment has no pool for the role."),
    WrongComponent.kind: _error(HTTPStatus.UNPROCESSABLE_ENTITY, "The component named is another role's."),
    OnePoolTwice.kind: _error(HTTPStatus.UNPROCESSABLE_ENTITY, "Two targets mean one pool."),
    AnotherBody.kind: _error(HTTPStatus.UNPROCESSABLE_ENTITY, "The request id was used for another request."),
    "overloaded": _error(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests wait for an answer.", 1),
    "internal": _error(HTTPStatus.INTERNAL_SERVER_ERROR, "A fault of the planner's; its log says more."),
    PolicyBroken.kind: _error(HTTPStatus.INTERNAL_SERVER_ERROR, "The policy's plan broke a rule; nothing was done."),
    "failed": _error(HTTPStatus.BAD_GATEWAY, "The cluster did not take the change; the message says what it did take."),
    NotReady.kind: _error(HTTPStatus.SERVICE_UNAVAILABLE, "The cluster was not read yet.", 1),
    NotLeading.kind: Code(
        HTTPStatus.SERVICE_UNAVAILABLE, "rejected", "Another planner decides; `reason.leader` is its address.", 1
    ),
    LedgerDown.kind: Code(
        HTTPStatus.SERVICE_UNAVAILABLE, "rejected", "The ledger cannot be read or written, so nothing is promised.", 1
    ),
    "stopping": _error(HTTPStatus.SERVICE_UNAVAILABLE, "The planner is being stopped.", 5),
}
"""How each kind of end is answered; the kinds of refusals are those of `gpcore.decisions`."""


def as_markdown() -> str:
    """Return the table as the page of the reference."""
    rows = [
        f"| `{kind}` | {code.http.value} {code.http.phrase} | `{code.status}` | "
        f"{code.meaning}{f' `Retry-After: {code.retry_s}`' if code.retry_s is not None else ''} |"
        for kind, code in CODES.items()
    ]
    return "\n".join([*_HEAD, *rows, ""])


_HEAD = (
    "# HTTP codes",
    "",
    "How `POST /v1/scale` and the other addresses answer. *Kind* is `reason.kind` in the body (of an answer that",
    "succeeds there is no reason), *status* is `status` in the body. This page is generated from",
    "`gpadapters.http.codes`; a test says whether it is current.",
    "",
    "What cannot be read as HTTP at all (no `Host`, two lengths, a head that is too long) is answered before any of",
    "this by a plain `400 Bad Request`: its body is text and not this JSON, and the connection is closed.",
    "",
    "`/readyz` answers `not_ready` also while the cluster is not being followed, and its message says which it is.",
    "",
    "A request with `blocking` that another change overtakes before its replicas serve ends as `success`, since every",
    "step was applied, and its message says so. Where too many requests block, one more is told `scaling` at once.",
    "",
    "| kind | code | status | meaning |",
    "|---|---|---|---|",
)
