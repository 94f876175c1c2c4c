"""The deployment guide's three example topologies, as objects to create.

The files are ours, written from the facts of the examples. Those of v1alpha1 keep the idioms of their time
(`componentType: default`, `resources.limits.gpu`, `envFromSecret`, `pvcs`); those of v1beta1 are their conversion.
"""

from collections.abc import Mapping
from pathlib import Path
from string import Template

import yaml

from tests.cluster.client import Client, Json
from tests.cluster.crds import GROUP

NAMES = ("global-planner-vllm-test", "global-planner-gpu-budget", "global-planner-mocker-test")

_FILES = Path(__file__).parents[1] / "fixtures" / "topologies"
_VARIABLES = {
    "DYNAMO_IMAGE": "registry.example/dynamo/dynamo-frontend:1.4.2",
    "DYNAMO_VLLM_IMAGE": "registry.example/dynamo/vllm-runtime:1.4.2",
    "MAX_TOTAL_GPUS": "8",
    "MODEL_A": "meta-llama/Llama-3.1-8B-Instruct",
    "MODEL_B": "Qwen/Qwen3-8B",
    "MODEL_NAME": "meta-llama/Llama-3.1-8B-Instruct",
    "STORAGE_CLASS_NAME": "standard",
}


def topology(
    name: str, *, namespace: str, version: str = "v1beta1", variables: Mapping[str, str] | None = None
) -> list[Json]:
    """Give the objects of topology *name* in their order, with its variables filled in for *namespace*."""
    text = (_FILES / f"{name}.{version}.yaml").read_text()
    values = {**_VARIABLES, "K8S_NAMESPACE": namespace, **(variables or {})}
    return list(yaml.safe_load_all(Template(text).substitute(values)))


def deploy(client: Client, objects: list[Json], *, namespace: str) -> list[Json]:
    """Create the graphs among *objects* in *namespace* and give them as stored."""
    graphs = [obj for obj in objects if obj["apiVersion"].startswith(f"{GROUP}/")]
    return [client.create(graph, namespace=namespace) for graph in graphs]
