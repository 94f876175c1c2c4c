"""Rights of service accounts in one namespace, among them those that Dynamo's own Helm chart gives to its planners."""

from collections.abc import Iterable

from tests.cluster.apiserver import existing_is_fine
from tests.cluster.client import Client, Json, path_of

_RBAC = "rbac.authorization.k8s.io"

STOCK: tuple[Json, ...] = (
    {
        "apiGroups": ["nvidia.com"],
        "resources": ["dynamocomponentdeployments", "dynamographdeployments"],
        "verbs": ["get", "list", "create", "update", "patch"],
    },
    {"apiGroups": ["nvidia.com"], "resources": ["dynamographdeploymentscalingadapters/scale"], "verbs": ["patch"]},
    {
        "apiGroups": ["nvidia.com"],
        "resources": ["dynamoworkermetadatas"],
        "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
    },
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch"]},
)
"""What the chart's Role `planner-role` says; it is bound to the service account `planner-serviceaccount`."""


def rule(verbs: Iterable[str], *resources: str) -> Json:
    """Give the rule that lets somebody do *verbs* to *resources* of Dynamo's group."""
    return {"apiGroups": ["nvidia.com"], "resources": list(resources), "verbs": list(verbs)}


def grant(client: Client, namespace: str, account: str, rules: Iterable[Json]) -> None:
    """Let the service account have just the rights of *rules*, whatever it had from here before."""
    head = {"apiVersion": f"{_RBAC}/v1", "metadata": {"name": account, "namespace": namespace}}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    binding = {"subjects": [subject], "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": account}}
    with existing_is_fine():
        client.create({**head, "kind": "RoleBinding", **binding})
    with existing_is_fine():
        client.create({**head, "kind": "Role", "rules": []})
    client.merge(path_of(f"{_RBAC}/v1", "roles", namespace=namespace, name=account), {"rules": list(rules)})
