"""What runs the planner in a cluster, as the dicts of its objects.

Rules of this file: values in, dicts out, with the standard library alone; names and numbers come in checked. The
planner may do what it does, and nothing else: no wildcard, no secret, no cluster-wide right.
"""

from dataclasses import dataclass
from typing import Any

from gpadapters.kubernetes.crd import GROUP, PLURAL, lease_name

Json = dict[str, Any]

_DYNAMO = "nvidia.com"
_LEASES = "coordination.k8s.io"
_RBAC = "rbac.authorization.k8s.io/v1"
_EVENTS: Json = {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]}
_NO_AUTHENTICATION = (
    "The planner believes what callers say about who they are (--insecure-no-auth), because it does not authenticate "
    "them yet. The NetworkPolicy of the same name decides who can connect; a cluster whose network does not enforce "
    "policies is open to every pod."
)


@dataclass(frozen=True, kw_only=True)
class Values:
    """Say what to run and for whom.

    *watched* are the Kubernetes namespaces whose deployments the planner scales, *allowed* those whose every pod may
    connect, *arguments* the planner's flags but those that the manifests themselves decide. *domain* is the name of the
    ledger; where it is not *shared*, it is kept in the planner's memory, and there is one planner at a time. An
    *account* is one that exists, of a planner that somebody else runs; then it gets its rights, and that is all. *pods*
    says whether releases are confirmed by pods, which the planner then follows.
    """

    name: str
    namespace: str
    image: str
    version: str
    port: int
    replicas: int = 1
    domain: str = "default"
    shared: bool = True
    watched: tuple[str, ...]
    allowed: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    account: str | None = None
    pods: bool = False


def planner(values: Values) -> list[Json]:
    """Return every object of a planner, in the order in which to apply them."""
    if values.account is not None:
        return _rights(values)
    return [
        _service_account(values),
        *_rights(values),
        _network_policy(values),
        _service(values),
        _deployment(values),
    ]


def _rights(values: Values) -> list[Json]:
    return [
        *(_role(values, watched) for watched in values.watched),
        *(_role_binding(values, watched) for watched in values.watched),
        *([_ledger_role(values), _ledger_role_binding(values)] if values.shared else []),
    ]


def _service_account(values: Values) -> Json:
    return _object(values, "v1", "ServiceAccount") | {"automountServiceAccountToken": False}


def _role(values: Values, watched: str) -> Json:
    """Return the rights in one namespace: follow deployments and adapters, change their replicas, and tell of it.

    `patch` on a deployment allows more than replicas; Kubernetes has no smaller right for it. The same right lets the
    planner put its fence on the object, an annotation that tells its writes apart.
    """
    resources = ["dynamographdeployments", "dynamographdeploymentscalingadapters"]
    rules = [
        {"apiGroups": [_DYNAMO], "resources": resources, "verbs": ["get", "list", "watch", "patch"]},
        _EVENTS,
    ]
    if values.pods:
        rules.append({"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]})
    return _object(values, _RBAC, "Role", watched) | {"rules": rules}


def _role_binding(values: Values, watched: str) -> Json:
    return _object(values, _RBAC, "RoleBinding", watched) | _binding(values, values.name)


def _ledger_role(values: Values) -> Json:
    """Return the rights where the planner runs: to make the one ledger and the one lease, read and change them.

    Not to delete them; nor can `create` be bound to a name. And to tell of the ledger, as of what is scaled.
    """
    rules = []
    for group, resource, name in ((GROUP, PLURAL, values.domain), (_LEASES, "leases", lease_name(values.domain))):
        rules.append({"apiGroups": [group], "resources": [resource], "verbs": ["create"]})
        own = {"apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": ["get", "patch"]}
        rules.append(own)
    rules += [] if values.namespace in values.watched else [_EVENTS]
    return _named(_object(values, _RBAC, "Role"), f"{values.name}-ledger") | {"rules": rules}


def _ledger_role_binding(values: Values) -> Json:
    name = f"{values.name}-ledger"
    return _named(_object(values, _RBAC, "RoleBinding"), name) | _binding(values, name)


def _binding(values: Values, role: str) -> Json:
    return {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": values.account or values.name, "namespace": values.namespace}],
    }


def _named(made: Json, name: str) -> Json:
    return made | {"metadata": made["metadata"] | {"name": name}}


def _network_policy(values: Values) -> Json:
    """Return who may connect: Dynamo's planners of the watched namespaces, and every pod of the allowed ones.

    A probe of the kubelet comes from the node, which policies let through.
    """
    planners = {"podSelector": {"matchLabels": {"nvidia.com/dynamo-component-type": "planner"}}}
    sources = [_namespaces(values.watched) | planners]
    sources += [_namespaces(values.allowed)] if values.allowed else []
    return _object(values, "networking.k8s.io/v1", "NetworkPolicy") | {
        "spec": {
            "podSelector": {"matchLabels": _selector(values)},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": sources, "ports": [{"protocol": "TCP", "port": values.port}]}],
        }
    }


def _namespaces(names: tuple[str, ...]) -> Json:
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(names)}
    return {"namespaceSelector": {"matchExpressions": [expression]}}


def _service(values: Values) -> Json:
    return _object(values, "v1", "Service") | {
        "spec": {
            "type": "ClusterIP",
            "selector": _selector(values),
            "ports": [{"name": "http", "protocol": "TCP", "port": values.port, "targetPort": "http"}],
        }
    }


def _deployment(values: Values) -> Json:
    """Return the Deployment.

    A new planner is ready before an old one goes, and takes over at once; but where they would not share a ledger, one
    goes before another comes, since two would each promise the same GPUs.
    """
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    made = _object(values, "apps/v1", "Deployment")
    made["metadata"]["annotations"] = {"kubernetes.io/description": _NO_AUTHENTICATION}
    return made | {
        "spec": {
            "replicas": values.replicas,
            "strategy": rolling if values.shared else {"type": "Recreate"},
            "selector": {"matchLabels": _selector(values)},
            "template": {"metadata": {"labels": _labels(values)}, "spec": _pod(values)},
        }
    }


def _pod(values: Values) -> Json:
    return {
        "serviceAccountName": values.name,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(values)],
    }


def _container(values: Values) -> Json:
    return {
        "name": "planner",
        "image": values.image,
        "command": ["gpctl", "planner"],
        "args": [
            *("--listen", f"0.0.0.0:{values.port}", "--insecure-no-auth"),
            *(() if "--log-format" in values.arguments else ("--log-format", "json")),
            *values.arguments,
        ],
        "env": [_from_pod("POD_NAMESPACE", "metadata.namespace"), _from_pod("POD_IP", "status.podIP")],
        "ports": [{"name": "http", "protocol": "TCP", "containerPort": values.port}],
        "readinessProbe": _probe("/readyz", period_s=5, failures=3),
        "livenessProbe": _probe("/healthz", period_s=10, failures=3),
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _from_pod(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _probe(path: str, *, period_s: int, failures: int) -> Json:
    get = {"path": path, "port": "http"}
    return {"httpGet": get, "periodSeconds": period_s, "timeoutSeconds": 2, "failureThreshold": failures}


def _object(values: Values, api_version: str, kind: str, namespace: str | None = None) -> Json:
    metadata = {"name": values.name, "namespace": namespace or values.namespace, "labels": _labels(values)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _labels(values: Values) -> dict[str, str]:
    return _selector(values) | {
        "app.kubernetes.io/version": values.version,
        "app.kubernetes.io/component": "planner",
        "app.kubernetes.io/part-of": "gpcore",
        "app.kubernetes.io/managed-by": "gpctl",
    }


def _selector(values: Values) -> dict[str, str]:
    return {"app.kubernetes.io/name": "gpcore", "app.kubernetes.io/instance": values.name}
