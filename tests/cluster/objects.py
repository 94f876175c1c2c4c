"""Builders of realistic Dynamo objects, and the reading of either version that the fake operator needs.

Rules of this file: everything is built in v1beta1 and converted when v1alpha1 is wanted; only `create_all` talks to a
server.
"""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import attrs

from tests.cluster.client import Client, Json
from tests.cluster.conversion import converted

_GPU = "nvidia.com/gpu"
_IMAGE = "registry.example/dynamo/vllm-runtime:1.4.2"
_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
_PROFILE = "/workspace/tests/planner/profiling_results/H200_TP1P_TP1D"


@attrs.frozen
class Component:
    """One component of a graph, of either version, as a test wants to build or read it."""

    name: str
    type: str | None = None
    replicas: int | None = 1
    gpus: int | None = 0  # None: what the object says is no whole number
    scaling_adapter: bool = False
    nodes: int = 1
    args: tuple[str, ...] = ()

    @property
    def gpus_per_replica(self) -> int | None:
        """Give the GPUs that one more replica takes, when they are known."""
        return None if self.gpus is None else self.gpus * self.nodes

    @property
    def wanted(self) -> int:
        """Give the desired count; absent means 1, as it does to Dynamo's operator."""
        return 1 if self.replicas is None else self.replicas


def pool(
    name: str,
    role: str = "prefill",
    *,
    gpus: int = 1,
    replicas: int | None = 1,
    nodes: int = 1,
    scaling_adapter: bool = False,
    version: str = "v1beta1",
) -> Json:
    """Build a deployment as the guide's step 3 does: a local router, one kind of worker and its planner."""
    worker = Component(
        f"Vllm{role.capitalize()}Worker",
        type=role,
        replicas=replicas,
        gpus=gpus,
        nodes=nodes,
        scaling_adapter=scaling_adapter,
        args=_worker_args(role, gpus),
    )
    router = Component("LocalRouter", args=("python3", "-m", "dynamo.router", "--router-block-size", "16"))
    return graph(name, (router, worker, _planner(role, gpus)), version=version)


def disaggregated(
    name: str,
    *,
    prefill: int | None = 1,
    decode: int | None = 1,
    gpus: int = 1,
    scaling_adapter: bool = False,
    version: str = "v1beta1",
) -> Json:
    """Build a deployment with a frontend, prefill and decode workers and a planner: 4.7 KB, as real ones are."""
    workers = [
        Component(
            f"Vllm{role.capitalize()}Worker",
            type=role,
            replicas=count,
            gpus=gpus,
            scaling_adapter=scaling_adapter,
            args=_worker_args(role, gpus),
        )
        for role, count in (("prefill", prefill), ("decode", decode))
    ]
    frontend = Component("Frontend", type="frontend", args=("python3", "-m", "dynamo.frontend", "--model-name", _MODEL))
    return graph(name, (frontend, *workers, _planner("disagg", gpus)), version=version)


def graph(name: str, components: Iterable[Component], *, version: str = "v1beta1") -> Json:
    """Build a deployment of just these *components*."""
    obj = {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": "DynamoGraphDeployment",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "dynamo"},
            "annotations": {"nvidia.com/enable-metrics": "true", "nvidia.com/enable-grove": "false"},
        },
        "spec": {"backendFramework": "vllm", "components": [_component(component) for component in components]},
    }
    return converted(obj, version)


def fleet(count: int, *, scaling_adapter: bool = False, version: str = "v1beta1", prefix: str = "model") -> list[Json]:
    """Build *count* disaggregated deployments with 1 to 8 replicas and 1, 2, 4 or 8 GPUs each."""
    return [
        disaggregated(
            f"{prefix}-{number:04}",
            prefill=1 + number % 8,
            decode=1 + number // 8 % 8,
            gpus=2 ** (number % 4),
            scaling_adapter=scaling_adapter,
            version=version,
        )
        for number in range(count)
    ]


def create_all(client: Client, objects: Sequence[Json], *, namespace: str, connections: int = 4) -> list[Json]:
    """Create all *objects* over a few connections at once and give them as stored, in the same order."""
    with Client(client.access) as own, ThreadPoolExecutor(connections) as executor:
        return list(executor.map(lambda obj: own.create(obj, namespace=namespace), objects))


def components_of(obj: Json) -> list[Component]:
    """Read the components of a deployment of either version, in its order."""
    spec = converted(obj, "v1beta1").get("spec", {})
    return [_read(component) for component in spec.get("components", [])]


def replicas_pointer(obj: Json, name: str) -> str:
    """Give the JSON pointer to the replicas of component *name* in a deployment of either version."""
    spec = obj["spec"]
    if "services" in spec:
        return f"/spec/services/{name}/replicas"
    index = next(index for index, component in enumerate(spec["components"]) if component["name"] == name)
    return f"/spec/components/{index}/replicas"


def _read(component: Json) -> Component:
    containers = component.get("podTemplate", {}).get("spec", {}).get("containers", [])
    main: Json = next((container for container in containers if container["name"] == "main"), {})
    resources = main.get("resources", {})
    gpus = str(resources.get("limits", {}).get(_GPU) or resources.get("requests", {}).get(_GPU) or 0)
    return Component(
        component["name"],
        type=component.get("type"),
        replicas=component.get("replicas"),
        gpus=int(gpus) if gpus.isdecimal() else None,
        scaling_adapter="scalingAdapter" in component,
        nodes=component.get("multinode", {}).get("nodeCount", 1),
    )


def _component(component: Component) -> Json:
    result: Json = {"name": component.name}
    if component.type is not None:
        result["type"] = component.type
    if component.replicas is not None:
        result["replicas"] = component.replicas
    if component.nodes > 1:
        result["multinode"] = {"nodeCount": component.nodes}
    if component.scaling_adapter:
        result["scalingAdapter"] = {}
    return result | {"podTemplate": {"spec": _pod(component)}}


def _pod(component: Component) -> Json:
    main = {
        "name": "main",
        "image": _IMAGE,
        "workingDir": "/workspace/examples/backends/vllm",
        "command": ["python3", "-m", "dynamo.component"],
        "args": list(component.args),
        "env": [
            {"name": "DYN_SYSTEM_PORT", "value": "9090"},
            {"name": "HF_HOME", "value": "/home/dynamo/.cache/huggingface"},
        ],
        "envFrom": [{"secretRef": {"name": "hf-token-secret"}}],
        "resources": _resources(component),
        "volumeMounts": [{"name": "hf-model-cache", "mountPath": "/home/dynamo/.cache/huggingface/hub"}],
    }
    return {
        "containers": [main],
        "imagePullSecrets": [{"name": "docker-imagepullsecret"}],
        "terminationGracePeriodSeconds": 60,
        "volumes": [{"name": "hf-model-cache", "persistentVolumeClaim": {"claimName": "hf-model-cache"}}],
    }


def _resources(component: Component) -> Json:
    amounts = {"cpu": "8", "memory": "64Gi"} if component.gpus else {"cpu": "2", "memory": "4Gi"}
    gpus = {_GPU: str(component.gpus)} if component.gpus else {}
    return {"limits": amounts | gpus, "requests": amounts | gpus}


def _worker_args(role: str, gpus: int) -> tuple[str, ...]:
    return ("--model", _MODEL, "--tensor-parallel-size", str(gpus), "--disaggregation-mode", role)


def _planner(mode: str, gpus: int) -> Component:
    config = {
        "environment": "global-planner",
        "global_planner_namespace": "default-gp-ctrl",
        "backend": "vllm",
        "mode": mode,
        "optimization_target": "sla",
        "enable_load_scaling": False,
        "enable_throughput_scaling": True,
        "throughput_metrics_source": "router",
        "ttft_ms": 2000,
        "itl_ms": 200,
        "max_gpu_budget": -1,
        "prefill_engine_num_gpu": gpus,
        "decode_engine_num_gpu": gpus,
        "model_name": _MODEL,
        "profile_results_dir": _PROFILE,
    }
    return Component(
        "Planner", type="planner", args=("python3", "-m", "dynamo.planner", "--config", json.dumps(config))
    )
