"""The few fields of Dynamo's objects that the planner reads, and how bytes become them.

Rules of this file: pure. Whatever somebody may get wrong in a manifest is read as it is and judged in `objects`; only
what the API server itself guarantees is typed. Fields of both API versions stand side by side, because a server
without a conversion webhook serves one version's fields under the name of the other.
"""

from typing import Any, Literal, TypeVar

import msgspec

Amounts = dict[str, Any]

FENCE = "gpcore.dev/fence"
"""The annotation that says which write of ours an object took last, and whose ledger that stands in."""


class Resources(msgspec.Struct, rename="camel"):
    """What a container, or a v1alpha1 service, asks for."""

    limits: Amounts | None = None
    requests: Amounts | None = None
    claims: list[Any] | None = None


class Container(msgspec.Struct, rename="camel"):
    """A container, or init container, of a pod."""

    resources: Resources | None = None
    restart_policy: str | None = None


class Pod(msgspec.Struct, rename="camel"):
    """The specification of a pod; *main_container* stands beside *containers* in v1alpha1's `extraPodSpec`."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    main_container: Container | None = None
    resource_claims: list[Any] | None = None


class PodTemplate(msgspec.Struct):
    """A v1beta1 component's template."""

    spec: Pod | None = None


class Multinode(msgspec.Struct, rename="camel"):
    """Says that one replica spans several nodes."""

    node_count: Any = None


class Engine(msgspec.Struct, rename="camel"):
    """Experimental features that change how many GPUs the pods of a component hold."""

    gpu_memory_service: Any = None
    failover: Any = None


class Part(msgspec.Struct, rename="camel"):
    """A v1beta1 component or a v1alpha1 service."""

    name: str | None = None
    type: str | None = None
    component_type: str | None = None
    sub_component_type: str | None = None
    replicas: Any = None
    multinode: Multinode | None = None
    roles: list[Any] | None = None
    pod_template: PodTemplate | None = None
    resources: Resources | None = None
    extra_pod_spec: Pod | None = None
    experimental: Engine | None = None
    scaling_adapter: Any = None


class Grouping(msgspec.Struct, rename="camel"):
    """Experimental features of a whole deployment."""

    component_groups: list[Any] | None = None


class GraphSpec(msgspec.Struct):
    """What is asked for."""

    components: list[Part] | None = None
    services: dict[str, Part | None] | None = None
    experimental: Grouping | None = None


class PartStatus(msgspec.Struct, rename="camel"):
    """What the operator says of one component."""

    replicas: Any = None
    updated_replicas: Any = None
    ready_replicas: Any = None
    available_replicas: Any = None
    scheduled_replicas: Any = None
    gpus_per_engine: Any = None
    gpus_per_replica: Any = None


class GraphStatus(msgspec.Struct, rename="camel"):
    """What the operator says."""

    observed_generation: int | None = None
    components: dict[str, PartStatus | None] | None = None
    services: dict[str, PartStatus | None] | None = None


class Annotations(msgspec.Struct):
    """The one annotation that is ours."""

    fence: str | None = msgspec.field(name=FENCE, default=None)


class Metadata(msgspec.Struct, rename="camel"):
    """Which object, and which version of it."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    generation: int = 0
    deletion_timestamp: str | None = None
    annotations: Annotations | None = None


class PodMetadata(Metadata):
    """Which pod, and whose."""

    labels: dict[str, str] | None = None


class PodStatus(msgspec.Struct):
    """How far a pod is."""

    phase: str = ""


class PodObject(msgspec.Struct):
    """A pod; a list leaves out its kind."""

    metadata: PodMetadata
    kind: Literal["Pod"] = "Pod"
    status: PodStatus | None = None


class GraphObject(msgspec.Struct):
    """A DynamoGraphDeployment."""

    metadata: Metadata
    kind: Literal["DynamoGraphDeployment"] = "DynamoGraphDeployment"
    spec: GraphSpec | None = None
    status: GraphStatus | None = None


class Reference(msgspec.Struct, rename="camel"):
    """What an adapter scales."""

    name: str
    service_name: str | None = None
    component_name: str | None = None
    component_group_name: str | None = None


class AdapterSpec(msgspec.Struct, rename="camel"):
    """What an adapter asks for."""

    dgd_ref: Reference
    replicas: Any = None


class AdapterObject(msgspec.Struct):
    """A DynamoGraphDeploymentScalingAdapter."""

    metadata: Metadata
    spec: AdapterSpec
    kind: Literal["DynamoGraphDeploymentScalingAdapter"] = "DynamoGraphDeploymentScalingAdapter"


class AnyObject(msgspec.Struct):
    """An object of which nothing but its metadata is understood."""

    metadata: Metadata
    kind: Literal["DynamoGraphDeployment"] = "DynamoGraphDeployment"


class PageMetadata(msgspec.Struct, rename="camel"):
    """Where a list stands and how it goes on."""

    resource_version: str
    continue_: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct):
    """One page of a list; each item is decoded by itself, so one that is not understood spoils no other."""

    metadata: PageMetadata
    items: list[msgspec.Raw] | None = None


class Bookmark(msgspec.Struct):
    """Says how far a watch has come when nothing changes."""

    metadata: PageMetadata


class Change(msgspec.Struct):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class Details(msgspec.Struct):
    """What a refusal is about."""

    name: str = ""
    kind: str = ""


class Refusal(msgspec.Struct):
    """The Status object that an error is told with."""

    code: int = 0
    message: str = ""
    reason: str = ""
    details: Details | None = None


class Resource(msgspec.Struct):
    """A kind of object that a version of the API group serves."""

    name: str


class Served(msgspec.Struct):
    """All that a version of the API group serves."""

    resources: list[Resource]


class Verdict(msgspec.Struct):
    """What the API server's authorizer says."""

    allowed: bool


class Review(msgspec.Struct):
    """The answer to the question whether this account may do something."""

    status: Verdict


T = TypeVar("T")

_DECODERS: dict[type[Any], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (GraphObject, AdapterObject, PodObject, AnyObject, Page, Bookmark, Change, Refusal, Served, Review)
}


def decode(kind: type[T], raw: bytes | msgspec.Raw) -> T:
    """Return *raw* as *kind*, or raise ValueError that says what is wrong with it."""
    try:
        decoded: T = _DECODERS[kind].decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise ValueError(f"not {kind.__name__}: {str(fault)[:200]}") from fault
    return decoded
