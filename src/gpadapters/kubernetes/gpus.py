"""How many GPUs one replica of a component takes.

Rules of this file: pure. A number that cannot be told is None, never 0; what is counted twice is safe under a ceiling,
what is forgotten is not. Three sources, the best first: the operator's status, as long as it tells about the spec as
it is now; the shape that was last accepted; what the spec itself asks for.
"""

import re
from collections.abc import Iterable
from typing import Any

import attrs

from gpadapters.kubernetes.schema import Amounts, Container, Multinode, Part, PartStatus, Pod, Resources
from gpcore.pools import MAX_GPUS_PER_REPLICA

_DEVICE = re.compile(r"([-a-z0-9.]+/)?gpu(\.shared)?|nvidia\.com/mig-.+|gpu\.intel\.com/(i915|xe)")
"""What counts as a GPU. A slice of one (MIG, time-sliced) counts as a whole: too much is safe, nothing is not."""

_DIGITS = re.compile(r"[0-9]{1,9}")

_DEFAULT_NODES = 2


@attrs.frozen
class Shape:
    """Remember the GPUs per replica that were accepted, and what the spec asked for then.

    *most* are the most replicas that were asked for since a status told about the spec of its time.
    """

    gpus: int | None
    asked: int | None
    most: int = 0


def settled(*, asked: int | None, told: int | None, current: bool, before: Shape | None) -> Shape:
    """Return the shape to count with now.

    *asked* is what the spec asks for, *told* what the status says, *current* whether the status tells about this
    very spec, *before* the shape that was accepted last of the same object.

    A current status wins; an operator that states no GPUs leaves the spec's own number. Until the status is current,
    a spec that asks for what it did keeps its shape: a change of replicas makes every status old for a moment. A spec
    that asks for something else may already have pods of its own beside those that still run, so the larger of the
    two counts, until the operator has seen it. If one of them is unknown, so is the larger.
    """
    if current and told is not None:
        return Shape(told, asked)
    if before is not None and before.asked == asked and (asked is None or not current):
        return before
    if current:
        return Shape(asked, asked)
    earlier = before.gpus if before is not None else (asked if told is None else told)
    if earlier is None or asked is None:
        return Shape(None, asked)
    return Shape(max(earlier, asked), asked)


def told(status: PartStatus) -> int | None:
    """Return the GPUs per replica that *status* states by the operator's newest rule, or None where it does not."""
    per_replica, per_engine = whole(status.gpus_per_replica), whole(status.gpus_per_engine)
    if per_replica is None or per_engine is None or per_replica > MAX_GPUS_PER_REPLICA:
        return None
    return None if per_replica == 0 and per_engine != 0 else per_replica


def asked(part: Part, *, engine: bool) -> int | None:
    """Return the GPUs that the spec of *part* asks for per replica, over all its nodes and containers.

    None where only the operator knows: claims of dynamic resources, roles with pods of their own, shadow engines. An
    *engine* whose object says nothing about its pods is unknown too; anything else that says nothing asks for none.
    """
    if part.roles or (part.experimental and (part.experimental.gpu_memory_service or part.experimental.failover)):
        return None
    template = None if part.pod_template is None else part.pod_template.spec
    pods = [pod for pod in (template, part.extra_pod_spec) if pod is not None]
    if not pods and part.resources is None:
        return None if engine else 0
    if any(pod.resource_claims for pod in pods):
        return None
    amounts = [_main(part.resources, pods), *map(_others, pods), nodes_of(part.multinode)]
    if None in amounts:
        return None
    *containers, nodes = (amount or 0 for amount in amounts)
    total = sum(containers) * nodes
    return total if total <= MAX_GPUS_PER_REPLICA else None


def whole(value: object) -> int | None:
    """Return *value* if it is a whole number of at least 0 in JSON, however it is written there."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _main(resources: Resources | None, pods: Iterable[Pod]) -> int | None:
    """Return the GPUs of v1alpha1's main container, which may be said to ask for them in two places."""
    said = [_wanted(resources), *(_wanted(pod.main_container.resources) for pod in pods if pod.main_container)]
    return _largest(said)


def _others(pod: Pod) -> int | None:
    """Return what the scheduler reserves for the rest of *pod*.

    Init containers run one after the other before the others; those that keep running count from then on.
    """
    running = peak = 0
    for container in pod.init_containers or ():
        gpus = _wanted(container.resources)
        if gpus is None:
            return None
        peak = max(peak, running + gpus)
        running += gpus if container.restart_policy == "Always" else 0
    held = _sum(pod.containers or ())
    return None if held is None else max(peak, running + held)


def _sum(containers: Iterable[Container]) -> int | None:
    wanted = [_wanted(container.resources) for container in containers]
    return None if None in wanted else sum(gpus or 0 for gpus in wanted)


def _wanted(resources: Resources | None) -> int | None:
    """Return the GPUs of a container: limit or request, whichever is more (Kubernetes itself wants them equal)."""
    if resources is None:
        return 0
    return None if resources.claims else _largest([_devices(resources.limits), _devices(resources.requests)])


def _largest(amounts: list[int | None]) -> int | None:
    return None if None in amounts else max(amount or 0 for amount in amounts)


def _devices(amounts: Amounts | None) -> int | None:
    """Return the sum of the GPUs among *amounts*; v1alpha1 nests those it has no name for under `custom`."""
    total = 0
    for name, amount in (amounts or {}).items():
        nested = name == "custom" and isinstance(amount, dict)
        gpus = _devices(amount) if nested else _quantity(amount) if _DEVICE.fullmatch(name) else 0
        if gpus is None:
            return None
        total += gpus
    return total


def _quantity(amount: Any) -> int | None:  # noqa: ANN401 - whatever stands in the manifest
    """Return a plain count; `1k`, `1e3`, `500m` and `1.5` are nothing that anybody means by GPUs."""
    if isinstance(amount, str):
        return int(amount) if _DIGITS.fullmatch(amount) else None
    return whole(amount)


def nodes_of(multinode: Multinode | None) -> int | None:
    """Return on how many nodes one replica runs, a pod on each; None where that is not understood."""
    if multinode is None:
        return 1
    nodes = _DEFAULT_NODES if multinode.node_count is None else whole(multinode.node_count)
    return nodes or None
