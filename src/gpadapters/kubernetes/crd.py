"""The kind of object that a ledger is, as the API server wants it defined.

Rules of this file: plain data, with the standard library alone. The planner checks what it reads by itself and more
strictly; what is checked here keeps people from breaking a ledger by hand.
"""

from typing import Any

Json = dict[str, Any]

GROUP = "gpcore.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "GPULedger"
PLURAL = "gpuledgers"


def lease_name(ledger: str) -> str:
    """Return the name of the lease that goes with the ledger of this name."""
    return f"gp-{ledger}"


_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "format": "int64", "minimum": 0}
_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

_DESCRIPTION = (
    "GPULedger is what the planner has promised: what every pool may have, and every change under way, written before "
    "it is made. There is one for each budget of GPUs. Do not edit it. A planner that finds none makes one, and "
    "adopts what is there."
)


def definition() -> Json:
    """Return the CustomResourceDefinition of ledgers.

    The whole spec is one field to its managers ("atomic"), since the API server would otherwise keep a note for each
    field of it; fields that are not known are kept, since a later version may have written them.
    """
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "gpcore", "app.kubernetes.io/managed-by": "gpctl"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": KIND, "plural": PLURAL, "singular": "gpuledger", "shortNames": ["gpul"]},
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _schema()},
                    "additionalPrinterColumns": _columns(),
                }
            ],
        },
    }


def _schema() -> Json:
    spec = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "x-kubernetes-map-type": "atomic",
        "required": ["schema", "state", "epoch", "floor", "gpus", "entries"],
        "properties": {
            "schema": _TEXT | {"pattern": r"^[0-9]+\.[0-9]+$", "description": "Version of the form that follows."},
            "state": _TEXT | {"enum": ["Bootstrapping", "Active", "OverCommitted"], "description": "How things stand."},
            "epoch": _COUNT | {"description": "How many planners have taken over."},
            "ceiling": _COUNT | {"description": "The most GPUs that all pools may have together."},
            "floor": _COUNT | {"description": "The fewest GPUs that all pools are to have together."},
            "gpus": _COUNT | {"description": "The most GPUs that the pools may have now, with what is set aside."},
            "entries": _list(dict(_TEXT), "One line for each object that holds replicas."),
            "operations": _list(dict(_OPEN), "The changes under way."),
            "wishes": _list(dict(_TEXT), "What was asked for and could not be given."),
            "repeats": _list(dict(_OPEN), "Requests that are known by their ids."),
            "sequences": _list(dict(_TEXT), "The last number that each caller has counted to."),
            "freezes": _list(dict(_OPEN), "What is held as it is, and until when."),
            "moves": _list(dict(_TEXT), "The changes of late."),
            "ended": _list(dict(_OPEN), "The last changes that have ended."),
        },
    }
    return {
        "type": "object",
        "description": _DESCRIPTION,
        "required": ["spec"],
        "properties": {"apiVersion": dict(_TEXT), "kind": dict(_TEXT), "metadata": {"type": "object"}, "spec": spec},
    }


def _list(items: Json, description: str) -> Json:
    return {"type": "array", "items": items, "x-kubernetes-list-type": "atomic", "description": description}


def _columns() -> list[Json]:
    columns = [
        ("State", "string", ".spec.state"),
        ("Epoch", "integer", ".spec.epoch"),
        ("GPUs", "integer", ".spec.gpus"),
        ("Ceiling", "integer", ".spec.ceiling"),
        ("Floor", "integer", ".spec.floor"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ]
    return [{"name": name, "type": kind, "jsonPath": path} for name, kind, path in columns]
