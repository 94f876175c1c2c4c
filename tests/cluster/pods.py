"""The pods that the fake operator pretends to run, and the status that tells about them.

Rules of this file: pure; no clock but the words *observed*, *started* and *terminated*.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import attrs

from tests.cluster.client import Json
from tests.cluster.objects import Component, components_of


@attrs.frozen
class Pods:
    """The pods of one component: *desired* as observed, *ready* of these, *present* with those that still terminate."""

    desired: int = 0
    ready: int = 0
    present: int = 0

    def observed(self, desired: int) -> "Pods":
        """Follow a new desired count: nothing is ready sooner and nothing is gone sooner for it."""
        return Pods(desired, ready=min(self.ready, desired), present=max(self.present, desired))

    def started(self, count: int) -> "Pods":
        """Give the pods after *count* have become ready, as far as they are still wanted."""
        return attrs.evolve(self, ready=max(self.ready, min(count, self.desired)))

    def terminated(self, count: int) -> "Pods":
        """Give the pods after all but *count* are gone, as far as they are still unwanted."""
        return attrs.evolve(self, present=min(self.present, max(count, self.desired)))


def pods_of(graph: Json) -> dict[str, Pods]:
    """Read back the pods from the status of *graph*, as an operator does that has just started."""
    status = graph.get("status", {})
    return {
        name: Pods(one.get("updatedReplicas", 0), ready=one.get("readyReplicas", 0), present=one.get("replicas", 0))
        for name, one in (status.get("components") or status.get("services") or {}).items()
    }


def status_of(graph: Json, pods: Mapping[str, Pods], *, gpu_status: bool, now: datetime) -> Json:
    """Give the status of *graph*, the object as the operator has observed it, when these *pods* run."""
    ready = all(one.ready == one.desired for one in pods.values())
    per_component = "services" if "services" in graph["spec"] else "components"
    return {
        "observedGeneration": graph["metadata"]["generation"],
        "state": "successful" if ready else "pending",
        "conditions": [_condition(graph, ready=ready, now=now)],
        per_component: {
            component.name: _component_status(graph["metadata"], component, pods[component.name], gpu_status=gpu_status)
            for component in components_of(graph)
        },
    }


def told(status: Json) -> Json:
    """Give what *status* says apart from when; two that tell the same need no write."""
    timeless = [
        {key: value for key, value in condition.items() if key != "lastTransitionTime"}
        for condition in status.get("conditions", [])
    ]
    return status | {"conditions": timeless}


def _condition(graph: Json, *, ready: bool, now: datetime) -> Json:
    return {
        "type": "Ready",
        "status": "True" if ready else "False",
        "reason": "all_resources_are_ready" if ready else "some_resources_are_not_ready",
        "message": "All resources are ready" if ready else "Some resources are not ready",
        "observedGeneration": graph["metadata"]["generation"],
        "lastTransitionTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _component_status(metadata: Json, component: Component, pods: Pods, *, gpu_status: bool) -> Json:
    status = {
        "componentKind": "Deployment",
        "componentNames": [f"{metadata['name']}-{component.name.lower()}"],
        "runtimeNamespace": f"{metadata['namespace']}-{metadata['name']}",
        "replicas": pods.present,
        "updatedReplicas": pods.desired,
        "readyReplicas": pods.ready,
        "availableReplicas": pods.ready,
    }
    if gpu_status and component.gpus_per_replica is not None:
        status |= {"gpusPerEngine": component.gpus_per_replica, "gpusPerReplica": component.gpus_per_replica}
    return status
