"""The CustomResourceDefinitions of Dynamo that the planner touches, as far as it and a test need them.

Rules of this file: the types are the real ones where the planner reads or writes; everything else is kept as it is
(`x-kubernetes-preserve-unknown-fields`). Both versions are always part of the definition, so that changing what is
*served* is an update in place and never a deletion.
"""

import http
import time
from collections.abc import Collection, Iterable

import attrs

from tests.cluster.client import ApiError, Client, Json, path_of

GROUP = "nvidia.com"
GRAPHS = "dynamographdeployments"
ADAPTERS = "dynamographdeploymentscalingadapters"

_VERSIONS = ("v1alpha1", "v1beta1")
_DEFINITIONS = path_of("apiextensions.k8s.io/v1", "customresourcedefinitions")

_OPEN: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_COUNT: Json = {"type": "integer", "format": "int32", "minimum": 0}
_TEXT: Json = {"type": "string"}


@attrs.frozen
class Served:
    """Which versions the API server serves, oldest first, and in which it stores graphs."""

    versions: tuple[str, ...]
    graph_storage: str

    @property
    def adapter_storage(self) -> str:
        """Give the version in which adapters are stored: as upstream, the oldest."""
        return self.versions[0]


V1ALPHA1 = Served(("v1alpha1",), "v1alpha1")
V1BETA1 = Served(("v1beta1",), "v1beta1")
BOTH = Served(("v1alpha1", "v1beta1"), "v1beta1")


def graphs(
    namespace: str | None = None, name: str | None = None, *, version: str = "v1beta1", sub: str | None = None
) -> str:
    """Give the path of DynamoGraphDeployments, or of one."""
    return path_of(f"{GROUP}/{version}", GRAPHS, namespace=namespace, name=name, sub=sub)


def adapters(
    namespace: str | None = None, name: str | None = None, *, version: str = "v1beta1", sub: str | None = None
) -> str:
    """Give the path of DynamoGraphDeploymentScalingAdapters, or of one."""
    return path_of(f"{GROUP}/{version}", ADAPTERS, namespace=namespace, name=name, sub=sub)


def install(
    client: Client,
    served: Served = V1BETA1,
    *,
    plurals: Collection[str] = (GRAPHS, ADAPTERS),
    conversion: Json | None = None,
    within_s: float = 30.0,
) -> None:
    """Create or update the definitions of these *plurals* and wait until exactly the *served* versions answer.

    *conversion* is what `conversion.webhook` gives. Without it an object that is read in another version than it was
    written in only changes its `apiVersion`, which no real cluster does.
    """
    for plural in plurals:
        definition = _graph_definition(served) if plural == GRAPHS else _adapter_definition(served)
        definition["spec"]["conversion"] = conversion or {"strategy": "None"}
        _put(client, definition)
    deadline = time.monotonic() + within_s
    while not all(_as_wanted(client, served, plurals)):
        if time.monotonic() > deadline:
            msg = f"{served} is not what the API server serves after {within_s} s"
            raise TimeoutError(msg)
        time.sleep(0.02)


def _put(client: Client, definition: Json) -> None:
    path = f"{_DEFINITIONS}/{definition['metadata']['name']}"
    try:
        definition["metadata"]["resourceVersion"] = client.get(path)["metadata"]["resourceVersion"]
    except ApiError as error:
        if error.status != http.HTTPStatus.NOT_FOUND:
            raise
        client.create(definition)
    else:
        client.replace(path, definition)


def _as_wanted(client: Client, served: Served, plurals: Collection[str]) -> Iterable[bool]:
    for path in [graphs] * (GRAPHS in plurals) + [adapters] * (ADAPTERS in plurals):
        for version in _VERSIONS:
            yield _answers(client, path(version=version)) == (version in served.versions)


def _answers(client: Client, path: str) -> bool:
    try:
        client.get(path, limit=1)
    except ApiError as error:
        if error.status not in {http.HTTPStatus.NOT_FOUND, http.HTTPStatus.TOO_MANY_REQUESTS}:
            raise
        return False
    return True


def _graph_definition(served: Served) -> Json:
    schemas = {"v1alpha1": _graph_v1alpha1(), "v1beta1": _graph_v1beta1()}
    versions = [_version(v, schemas[v], served, storage=served.graph_storage) for v in _VERSIONS]
    return _definition(GRAPHS, "DynamoGraphDeployment", "dgd", versions)


def _adapter_definition(served: Served) -> Json:
    schemas = {"v1alpha1": _adapter("serviceName"), "v1beta1": _adapter("componentName")}
    versions = [_version(v, schemas[v], served, storage=served.adapter_storage) for v in _VERSIONS]
    for version in versions:
        version["subresources"]["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    return _definition(ADAPTERS, "DynamoGraphDeploymentScalingAdapter", "dgdsa", versions)


def _definition(plural: str, kind: str, short: str, versions: list[Json]) -> Json:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "shortNames": [short]},
            "versions": versions,
        },
    }


def _version(name: str, schema: Json, served: Served, *, storage: str) -> Json:
    return {
        "name": name,
        "served": name in served.versions,
        "storage": name == storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }


def _object(properties: Json, **more: object) -> Json:
    return {**_OPEN, "properties": properties, **more}


def _graph_v1beta1() -> Json:
    component = _object(
        {
            "name": {**_TEXT, "minLength": 1, "maxLength": 63, "pattern": "^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$"},
            "type": {**_TEXT, "enum": ["frontend", "worker", "prefill", "decode", "planner", "epp"]},
            "replicas": _COUNT,
            "minAvailable": {**_COUNT, "minimum": 1},
            "multinode": {"type": "object", "properties": {"nodeCount": {**_COUNT, "minimum": 2, "default": 2}}},
            "scalingAdapter": {"type": "object"},  # an empty struct: its presence opts in, other keys are pruned
            "podTemplate": _OPEN,
        },
        required=["name"],
    )
    components = {
        "type": "array",
        "maxItems": 25,
        "items": component,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    }
    return _object({"spec": _object({"components": components}), "status": _status("components")})


def _graph_v1alpha1() -> Json:
    service = _object(
        {
            "componentType": _TEXT,
            "subComponentType": _TEXT,
            "replicas": _COUNT,
            "multinode": {"type": "object", "properties": {"nodeCount": {**_COUNT, "minimum": 2, "default": 2}}},
            "scalingAdapter": {"type": "object", "properties": {"enabled": {"type": "boolean", "default": False}}},
            "resources": _OPEN,
            "extraPodSpec": _OPEN,
        }
    )
    services = {"type": "object", "maxProperties": 25, "additionalProperties": service}
    return _object({"spec": _object({"services": services}), "status": _status("services")})


def _status(per_component: str) -> Json:
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "gpusPerEngine", "gpusPerReplica")
    one = _object({name: {"type": "integer", "format": "int32"} for name in counts})
    return _object(
        {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "state": _TEXT,
            "conditions": {"type": "array", "items": _object({"type": _TEXT, "status": _TEXT})},
            per_component: {"type": "object", "additionalProperties": one},
        }
    )


def _adapter(component_key: str) -> Json:
    reference = _object({"name": {**_TEXT, "minLength": 1}, component_key: _TEXT}, required=["name"])
    spec = _object({"replicas": _COUNT, "dgdRef": reference}, required=["replicas", "dgdRef"])
    status = _object({"replicas": {"type": "integer", "format": "int32"}, "selector": _TEXT})
    return _object({"spec": spec, "status": status}, required=["spec"])
