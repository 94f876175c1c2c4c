"""Conversion between v1alpha1 and v1beta1 of Dynamo's objects, and the webhook that offers it to the API server.

Rules of this file: `converted` is pure and loses nothing that the builders and topologies use, but the order of
components: v1alpha1 has none, so they come back sorted by name. The webhook only carries it.
"""

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.cluster.client import Json

_ROLES = ("prefill", "decode")
_SAME = ("replicas", "multinode", "globalDynamoNamespace", "modelRef", "minAvailable", "topologyConstraint")
_PROBES = ("livenessProbe", "readinessProbe")
_GPU = "nvidia.com/gpu"


def converted(obj: Json, version: str) -> Json:
    """Give *obj* in *version* (`v1alpha1` or `v1beta1`)."""
    if obj["apiVersion"].endswith(f"/{version}"):
        return obj
    result = obj | {"apiVersion": f"nvidia.com/{version}"}
    if "spec" in obj:
        change = _SPECS[obj["kind"], version]
        result["spec"] = change(obj["spec"])
    if "status" in obj and obj["kind"] == "DynamoGraphDeployment":
        old, new = ("services", "components") if version == "v1beta1" else ("components", "services")
        result["status"] = _renamed(obj["status"], {old: new})
    return result


@contextlib.contextmanager
def webhook(*, certificate: Path, key: Path) -> Iterator[Json]:
    """Serve conversions on the loopback interface; give the `conversion` part of a definition that uses it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, name="conversion-webhook", daemon=True)
    thread.start()
    try:
        yield _definition(server.server_address[1], certificate)
    finally:
        server.shutdown()
        server.server_close()


def _definition(port: int, certificate: Path) -> Json:
    bundle = base64.b64encode(certificate.read_bytes()).decode()
    url = f"https://127.0.0.1:{port}/convert"
    return {
        "strategy": "Webhook",
        "webhook": {"clientConfig": {"url": url, "caBundle": bundle}, "conversionReviewVersions": ["v1"]},
    }


class _Handler(BaseHTTPRequestHandler):
    """Answers ConversionReviews on kept connections."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Convert what the review holds."""
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps(_reviewed(review)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _reviewed(review: Json) -> Json:
    request = review["request"]
    version = request["desiredAPIVersion"].rpartition("/")[2]
    response = {
        "uid": request["uid"],
        "result": {"status": "Success"},
        "convertedObjects": [converted(obj, version) for obj in request["objects"]],
    }
    return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}


def _graph_to_v1beta1(spec: Json) -> Json:
    result = _renamed(_without(spec, "services", "pvcs"), {"envs": "env"})
    if "services" in spec:
        result["components"] = [_component(name, service) for name, service in sorted(spec["services"].items())]
    return result


def _graph_to_v1alpha1(spec: Json) -> Json:
    result = _renamed(_without(spec, "components"), {"env": "envs"})
    if "components" in spec:
        result["services"] = {component["name"]: _service(component) for component in spec["components"]}
    return result


def _component(name: str, service: Json) -> Json:
    kind = service.get("componentType", "default")
    role = service.get("subComponentType")
    result: Json = {"name": name} | _only(service, *_SAME)
    if kind != "default":
        result["type"] = role if kind == "worker" and role in _ROLES else kind
    if service.get("scalingAdapter", {}).get("enabled"):
        result["scalingAdapter"] = {}
    result["podTemplate"] = _pod_template(service)
    return result


def _service(component: Json) -> Json:
    kind = component.get("type", "default")
    result = _only(component, *_SAME)
    result |= {"componentType": "worker", "subComponentType": kind} if kind in _ROLES else {"componentType": kind}
    if "scalingAdapter" in component:
        result["scalingAdapter"] = {"enabled": True}
    return result | _pod_parts(component.get("podTemplate", {}))


def _pod_template(service: Json) -> Json:
    pod = service.get("extraPodSpec", {})
    main = {"name": "main"} | pod.get("mainContainer", {}) | _only(service, *_PROBES)
    if "resources" in service:
        main["resources"] = {kind: _quantities(amounts) for kind, amounts in service["resources"].items()}
    if "envs" in service:
        main["env"] = service["envs"]
    if "envFromSecret" in service:
        main["envFrom"] = [{"secretRef": {"name": service["envFromSecret"]}}]
    mounts = service.get("volumeMounts", [])
    if mounts:
        main["volumeMounts"] = [{"name": m["name"], "mountPath": m["mountPoint"]} for m in mounts]
    claims = [{"name": m["name"], "persistentVolumeClaim": {"claimName": m["name"]}} for m in mounts]
    spec = _without(pod, "mainContainer") | {"containers": [main, *pod.get("containers", [])]}
    if claims:
        spec["volumes"] = pod.get("volumes", []) + claims
    metadata = _only(service, "annotations", "labels")
    return ({"metadata": metadata} if metadata else {}) | {"spec": spec}


def _pod_parts(template: Json) -> Json:
    """Give what a v1alpha1 service has in place of *template*; other fields of the pod stay in `extraPodSpec`."""
    pod = template.get("spec", {})
    containers = pod.get("containers", [])
    main: Json = next((container for container in containers if container["name"] == "main"), {})
    others = [container for container in containers if container["name"] != "main"]
    result = _only(template.get("metadata", {}), "annotations", "labels") | _only(main, *_PROBES)
    if "resources" in main:
        result["resources"] = {kind: _amounts(quantities) for kind, quantities in main["resources"].items()}
    if "env" in main:
        result["envs"] = main["env"]
    extra = _without(pod, "containers") | {"mainContainer": _without(main, "name", "resources", "env", *_PROBES)}
    return result | {"extraPodSpec": extra | ({"containers": others} if others else {})}


def _quantities(amounts: Json) -> Json:
    plain = _renamed(_without(amounts, "custom"), {"gpu": _GPU})
    custom: Json = amounts.get("custom", {})
    return plain | custom


def _amounts(quantities: Json) -> Json:
    plain = _renamed(_only(quantities, "cpu", "memory", _GPU), {_GPU: "gpu"})
    custom = _without(quantities, "cpu", "memory", _GPU)
    return plain | ({"custom": custom} if custom else {})


def _adapter_to(old: str, new: str) -> Callable[[Json], Json]:
    return lambda spec: spec | {"dgdRef": _renamed(spec["dgdRef"], {old: new})}


def _renamed(mapping: Json, names: dict[str, str]) -> Json:
    return {names.get(key, key): value for key, value in mapping.items()}


def _only(mapping: Json, *keys: str) -> Json:
    return {key: mapping[key] for key in keys if key in mapping}


def _without(mapping: Json, *keys: str) -> Json:
    return {key: value for key, value in mapping.items() if key not in keys}


_SPECS: dict[tuple[str, str], Callable[[Json], Json]] = {
    ("DynamoGraphDeployment", "v1beta1"): _graph_to_v1beta1,
    ("DynamoGraphDeployment", "v1alpha1"): _graph_to_v1alpha1,
    ("DynamoGraphDeploymentScalingAdapter", "v1beta1"): _adapter_to("serviceName", "componentName"),
    ("DynamoGraphDeploymentScalingAdapter", "v1alpha1"): _adapter_to("componentName", "serviceName"),
}
