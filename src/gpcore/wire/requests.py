"""The JSON form of a scale request: the peer's, read strictly.

Rules of this file: what a document may say is written here once; whether the fleet can do it is decided elsewhere.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from gpcore.errors import InvalidError, MalformedError
from gpcore.pools import MAX_REPLICAS, ParticipantId, Role
from gpcore.requests import MAX_SEQUENCE, MAX_TARGETS, REQUEST_ID, Claimed, ScaleRequest, Target
from gpcore.wire.documents import Extras, Node, Reading, certain, shown

API_VERSION = (1, 0)
"""What a request's `api_version` is compared with: fields that a newer minor version declares are ignored."""

_COMPONENT = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")


class TargetNames(NamedTuple):
    """What a document calls the parts of a target."""

    role: str
    replicas: str
    component: str


PEER_NAMES = TargetNames("sub_component_type", "desired_replicas", "component_name")
OWN_NAMES = TargetNames("role", "replicas", "component")


def scale_request(document: object, *, extras: Extras = Extras.REFUSED) -> ScaleRequest:
    """Return the request that *document* holds in the peer's form, or raise `InvalidError` with every problem."""
    if not isinstance(document, dict):
        raise MalformedError([f"a scale request must be a JSON object: {shown(document)}"])
    reading = Reading(_extras(document, extras))
    fields = reading.root(document).fields(
        ("caller_namespace", "graph_deployment_name", "k8s_namespace", "target_replicas"),
        ("blocking", "timestamp", "predicted_load", "api_version", "request_id", "sequence"),
    )
    caller = fields["caller_namespace"].built(Claimed)
    namespace = fields["k8s_namespace"].built(lambda text: ParticipantId(text, "any").namespace)
    name = fields["graph_deployment_name"].built(lambda text: ParticipantId("any", text).name)
    targets = read_targets(fields["target_replicas"], PEER_NAMES)
    blocking = "blocking" in fields and fields["blocking"].boolean()
    for unused, check in (("timestamp", Node.number), ("predicted_load", Node.mapping), ("api_version", _version)):
        if unused in fields:
            check(fields[unused])
    request_id = fields["request_id"].built(_request_id) if "request_id" in fields else None
    sequence = fields["sequence"].integer(high=MAX_SEQUENCE) if "sequence" in fields else None
    reading.finish()
    participant = ParticipantId(certain(namespace), certain(name))
    return ScaleRequest(
        certain(caller), participant, targets, blocking=blocking, request_id=request_id, sequence=sequence
    )


def read_targets(node: Node, names: TargetNames) -> tuple[Target, ...]:
    """Return the targets that *node* holds; one that names a role again is a problem."""
    roles: set[Role] = set()
    targets = []
    for item in node.items(low=1, high=MAX_TARGETS):
        target = _target(item, names)
        if target is not None and target.role in roles:
            item.refuse(f"role {target.role.value!r} is named before")
        elif target is not None:
            roles.add(target.role)
            targets.append(target)
    return tuple(targets)


def _target(node: Node, names: TargetNames) -> Target | None:
    fields = node.fields((names.role, names.replicas), (names.component,))
    role = fields[names.role].one_of((Role.PREFILL, Role.DECODE))
    replicas = fields[names.replicas].integer(high=MAX_REPLICAS)
    component = fields[names.component].built(_component) if names.component in fields else None
    return None if role is None or replicas is None else Target(role, replicas, component)


def _component(text: str) -> str:
    if not _COMPONENT.fullmatch(text):
        raise InvalidError([f"must be 1 to 253 letters, digits, '-', '_' or '.', or null: {shown(text)}"])
    return text


def _request_id(text: str) -> str:
    if not REQUEST_ID.fullmatch(text):
        raise InvalidError([f"must be 1 to 64 letters, digits, '.', '_' or '-': {shown(text)}"])
    return text


def _version(node: Node) -> None:
    """Refuse an `api_version` of another major version, or one that is none."""
    major, minor = API_VERSION
    version = _parsed(node.value)
    if version is None or version[0] != major:
        node.refuse(f"must be {major}.x, as this is {major}.{minor}: {shown(node.value)}")


def _extras(document: Mapping[str, object], extras: Extras) -> Extras:
    """Return how *document* wants its unknown fields read: a newer minor version may have some."""
    version = _parsed(document.get("api_version"))
    newer = version is not None and version[0] == API_VERSION[0] and version > API_VERSION
    return Extras.IGNORED if newer else extras


def _parsed(version: object) -> tuple[int, int] | None:
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    return None if match is None else (int(match[1]), int(match[2]))
