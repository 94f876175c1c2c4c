"""The OpenAPI document of the API, made from the same constants and the same table of codes as the server.

Rules of this file: data and a few words to write it with; the server serves what `document` returns.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from gpadapters.http.codes import CODES
from gpcore.holding import MAX_FREEZE_S, MAX_REASON
from gpcore.operations import Stage
from gpcore.pools import MAX_REPLICAS
from gpcore.requests import MAX_SEQUENCE, MAX_TARGETS, REQUEST_ID
from gpcore.wire.holding import MAX_FROZEN, MAX_NAME, MIN_FREEZE_S, Direction

Schema = dict[str, Any]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_TEXT: Schema = {"type": "string"}
_ROLE: Schema = {"type": "string", "enum": ["prefill", "decode", "worker"]}
_ASKED_ROLE: Schema = {"type": "string", "enum": ["prefill", "decode"]}
_ABOUT_ANSWERS = "See the reference page of HTTP codes: `reason.kind` says which of them it is."
_EXAMPLE: Schema = {
    "caller_namespace": "ns-a",
    "graph_deployment_name": "a",
    "k8s_namespace": "ns",
    "target_replicas": [{"sub_component_type": "prefill", "component_name": "prefill", "desired_replicas": 3}],
    "blocking": False,
}
_FREEZE: Schema = {"direction": "up", "for_seconds": 1800, "reason": "maintenance", "by": "ann"}
_REQUEST_ID: Schema = {"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"}
_POOL = f"^{_LABEL}/{_LABEL}(\\.{_LABEL})*/(prefill|decode|worker)$"


def document(version: str) -> Schema:
    """Return the document for this *version* of the server."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Global planner",
            "version": version,
            "description": "Scale requests in, replicas out, inside one GPU budget.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {"schemas": _schemas()},
    }


def _paths() -> Schema:
    always = ("bad_request", "internal")
    posted = ("malformed", "invalid", "body_timeout", "body_too_large", "media_type", "encoding", *always)
    limit = {
        "name": "limit",
        "in": "query",
        "description": "How many, the newest first.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    }
    key = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
    before = {*always, *posted, "not_found", "method_not_allowed"}
    fates = [kind for kind in CODES if kind not in before]
    body, noted = _body("ScaleRequest", _EXAMPLE), ("not_ready", "not_leading", "ledger_down")
    named = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same as `request_id` in the body.",
        "schema": _REQUEST_ID,
    }
    return {
        "/v1/scale": {
            "post": _operation("scale", "Ask for replicas of one deployment's pools, all or none.", "ScaleResponse")
            | {"parameters": [named], "requestBody": body}
            | {"responses": _responses("ScaleResponse", (*posted, *fates))},
        },
        "/v1/decide": {
            "post": _operation("decide", "Say how the same request would be decided now; nothing is done.", "Decided")
            | {"parameters": [named], "requestBody": body, "responses": _responses("Decided", (*posted, *fates))},
        },
        "/v1/pools": {"get": _operation("pools", "Return every pool that counts.", "Pools", (*always, "not_ready"))},
        "/v1/budget": {
            "get": _operation("budget", "Return the bounds and what counts.", "Budget", (*always, "not_ready"))
        },
        "/v1/decisions": {
            "get": _operation("decisions", "Return the last decisions.", "Decisions", (*always, "invalid"))
            | {"parameters": [limit]}
        },
        "/v1/decisions/{id}": {
            "get": _operation("decision", "Return one decision and why.", "Decision", (*always, "not_found"))
            | {"parameters": [key]}
        },
        "/v1/operations": {
            "get": _operation("operations", "Return the last operations.", "Operations", (*always, "invalid"))
            | {"parameters": [limit]}
        },
        "/v1/operations/{id}": {
            "get": _operation("operation", "Return how far an operation is.", "Operation", (*always, "not_found"))
            | {"parameters": [key]}
        },
        "/v1/freezes": {
            "get": _operation("freezes", "Return the freezes that hold.", "Freezes", always),
            "post": _operation("freeze", "Hold changes for a while; what is under way is finished.", "Freeze")
            | {"requestBody": _body("AskedFreeze", _FREEZE), "responses": _responses("Freeze", (*posted, *noted))},
        },
        "/v1/freezes/{id}": {
            "delete": _operation("thaw", "End a freeze now.", "Freeze", (*always, "not_found", *noted))
            | {"parameters": [key]}
        },
        "/v1/conditions": {
            "get": _operation(
                "conditions", "Return what holds the planner back, or what it runs without.", "Conditions"
            )
            | {"responses": _responses("Conditions", always)}
        },
        "/healthz": {"get": _operation("healthz", "Say that the process lives.", "Health", always)},
        "/readyz": {
            "get": _operation("readyz", "Say whether requests can be decided.", "Health", (*always, "not_ready"))
        },
        "/metrics": {"get": _other("metrics", "Return the metrics.", "text/plain", always)},
        "/openapi.json": {"get": _other("openapi", "Return this document.", "application/json", always)},
    }


def _body(name: str, example: Schema) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": _ref(name), "example": example}}}


def _operation(name: str, summary: str, answer: str, kinds: Iterable[str] = ()) -> Schema:
    return {"operationId": name, "summary": summary, "responses": _responses(answer, kinds)}


def _other(name: str, summary: str, media_type: str, kinds: Iterable[str]) -> Schema:
    found = _operation(name, summary, "Health", kinds)
    schema = _TEXT if media_type == "text/plain" else {"type": "object"}
    found["responses"]["200"] = {"description": summary, "content": {media_type: {"schema": schema}}}
    return found


def _responses(answer: str, kinds: Iterable[str]) -> Schema:
    """Return the answers with each code that *kinds* can end with; those of 200 are *answer*."""
    found: Schema = {"200": {"description": "As asked, or decided.", "content": _json(answer)}}
    for kind in kinds:
        code = CODES[kind]
        if code.http.value not in (200, *map(int, found)):
            whole = answer if answer in {"ScaleResponse", "Decided"} else None
            found[str(code.http.value)] = {
                "description": f"{code.http.phrase}. {_ABOUT_ANSWERS}",
                "content": _json("Problem", whole),
            }
    return found


def _json(*names: str | None) -> Schema:
    refs = [{"$ref": f"#/components/schemas/{name}"} for name in names if name is not None]
    return {"application/json": {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


def _list(items: Schema, **more: int) -> Schema:
    return {"type": "array", "items": items, **more}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> Schema:
    reason = {"type": "object", "required": ["kind"], "properties": {"kind": {"enum": list(CODES)}}}
    plan = _list(_list(_ref("Change")))
    asked = {"participant": _TEXT, "targets": _list(_ref("Target"))}
    decided = {
        **asked,
        "status": {"enum": ["approved", "rejected", "invalid", "error", "success"]},
        "reason": _maybe(reason),
        "plan": plan,
        "total_after": _maybe(_COUNT),
        "message": _TEXT,
    }
    decision = {"id": _TEXT, "at": _NUMBER, "caller": _TEXT, **decided, "operation_id": _maybe(_TEXT)}
    operation = {
        "id": _TEXT,
        "status": {"enum": ["success", "scaling", "rejected", "error"]},
        **asked,
        "plan": plan,
        "began_at": _NUMBER,
        "ended_at": _maybe(_NUMBER),
        "message": _TEXT,
        "caller": _TEXT,
        "legs": _list(_ref("Leg")) | {"description": "The writes of one that is under way."},
        "escrow": _COUNT | {"description": "The GPUs that are held for what is still to be written."},
        "written": _TEXT | {"description": "What was written, and through which fences, of one that ended."},
    }
    leg = {
        "stage": {"enum": [stage.value for stage in Stage]},
        "changes": _list(_ref("Change")),
        "fence": _maybe(_TEXT) | {"description": "The mark that its object shows when it is written."},
    }
    return {
        "ScaleRequest": _scale_request(),
        "TargetReplica": _target_replica(),
        "ScaleResponse": _object(
            {
                "status": {"enum": ["success", "scaling", "rejected", "error"]},
                "message": _TEXT,
                "current_replicas": {"type": "object", "additionalProperties": _COUNT},
                "decision_id": _TEXT,
                "reason": _maybe(reason),
                "plan": plan,
                "operation_id": _maybe(_TEXT),
            }
        ),
        "Problem": _object(
            {"status": {"enum": ["error", "rejected"]}, "message": _TEXT, "reason": reason, "problems": _list(_TEXT)}
        ),
        "Change": _object({"participant": _TEXT, "role": _ROLE, "before": _COUNT, "after": _COUNT}),
        "Target": _object({"role": _ASKED_ROLE, "replicas": _COUNT}),
        "Decided": _object(decided),
        "Decision": _object(decision),
        "Decisions": _object({"decisions": _list(_ref("Decision"))}),
        "Leg": _object(leg),
        "Operation": _object(operation),
        "Operations": _object({"operations": _list(_ref("Operation"))}),
        "Pool": _pool(),
        "Deployment": _object({"participant": _TEXT, "fixed_gpus": _maybe(_COUNT), "problems": _list(_TEXT)}),
        "Pools": _object({"pools": _list(_ref("Pool")), "deployments": _list(_ref("Deployment"))}),
        "Budget": _object(
            {
                **dict.fromkeys(("floor", "charged", "least", "intents", "operations", "escrow"), _COUNT),
                "ceiling": _maybe(_COUNT),
                "headroom": _maybe({"type": "integer"}),
                "shape_unknown": _list(_TEXT),
                "ledger": _ref("Ledger"),
                "leader": _TEXT | {"description": "The URL of the planner that decides, or `this planner`."},
            }
        ),
        "Ledger": _object(
            {"state": {"enum": ["Bootstrapping", "Active", "OverCommitted"]}, "epoch": _COUNT, "fault": _TEXT}
        ),
        **_freezes(),
        "Condition": _object({"kind": _TEXT, "detail": _TEXT}),
        "Conditions": _object({"conditions": _list(_ref("Condition"))}),
        "Health": _object({"status": {"enum": ["ok", "ready"]}}, {"conditions": _list(_ref("Condition"))}),
    }


def _freezes() -> Schema:
    what = {"direction": {"enum": [direction.value for direction in Direction]}, "reason": _TEXT, "by": _TEXT}
    length = {"type": "number", "minimum": MIN_FREEZE_S, "maximum": MAX_FREEZE_S}
    pools = _list({"type": "string", "pattern": _POOL}, minItems=1, maxItems=MAX_FROZEN)
    printable = {"type": "string", "pattern": "^[ -~]*[!-~][ -~]*$"}
    asked = {
        **what,
        "for_seconds": length,
        "reason": printable | {"minLength": 1, "maxLength": MAX_REASON},
        "by": printable | {"minLength": 1, "maxLength": MAX_NAME} | {"description": "Who asks; nobody vouches for it."},
    }
    named = {"pools": _maybe(pools) | {"description": "As namespace/name/role; left out: every pool."}}
    held = {"id": _TEXT, **what, "until": _NUMBER, "pools": _list(_TEXT)}
    return {
        "AskedFreeze": _object(asked, named),
        "Freeze": _object(held),
        "Freezes": _object({"freezes": _list(_ref("Freeze"))}),
    }


def _scale_request() -> Schema:
    return _object(
        {
            "caller_namespace": {
                "type": "string",
                "pattern": "^[A-Za-z0-9]([-A-Za-z0-9_.]{0,315}[A-Za-z0-9])?$",
                "description": "The Dynamo namespace of who asks.",
            },
            "graph_deployment_name": {"type": "string", "pattern": f"^{_LABEL}(\\.{_LABEL})*$", "maxLength": 253},
            "k8s_namespace": {"type": "string", "pattern": f"^{_LABEL}$", "maxLength": 63},
            "target_replicas": _list(_ref("TargetReplica"), minItems=1, maxItems=MAX_TARGETS)
            | {"description": "Each role at most once."},
        },
        {
            "blocking": {"type": ["boolean", "null"], "description": "Answer when the replicas serve."},
            "request_id": {"anyOf": [_REQUEST_ID, {"type": "null"}]}
            | {"description": "Sent again with it, a request has one effect and one answer."},
            "sequence": {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_SEQUENCE}
            | {"description": "One not above an earlier one of the caller comes too late."},
            "timestamp": {"type": ["number", "null"], "description": "Information; never used."},
            "predicted_load": {"type": ["object", "null"], "description": "Information; never used."},
            "api_version": {
                "enum": ["1.0", None],
                "description": "A newer minor version (1.x) makes unknown fields be ignored.",
            },
        },
    )


def _target_replica() -> Schema:
    component = {"type": ["string", "null"], "pattern": "^[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?$"}
    return _object(
        {"sub_component_type": _ASKED_ROLE, "desired_replicas": _COUNT | {"maximum": MAX_REPLICAS}},
        {"component_name": component},
    )


def _pool() -> Schema:
    counts = dict.fromkeys(("replicas", "ready", "present"), _COUNT)
    maybe = dict.fromkeys(("relayed", "reserved", "gpus_per_replica", "charged_gpus"), _maybe(_COUNT))
    return _object({"participant": _TEXT, "role": _ROLE, **counts, **maybe, "component": _TEXT, "authority": _TEXT})


def as_markdown() -> str:
    """Return the page of the reference: every address, and the fields of what is sent and answered."""
    described = document("0")
    lines = [*_HEAD]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            schema = operation["responses"]["200"]["content"]
            answer = next(iter(schema.values()))["schema"].get("$ref", "").rpartition("/")[2]
            lines.append(f"| `{method.upper()} {path}` | {operation['summary']} | {_linked(answer)} |")
    for name, schema in described["components"]["schemas"].items():
        lines += ["", f"## {name}", "", "| field | type | |", "|---|---|---|"]
        for field, kind in schema["properties"].items():
            needed = "" if field in schema["required"] else "optional. "
            lines.append(f"| `{field}` | {_type(kind)} | {needed}{kind.get('description', '')} |")
    return "\n".join([*lines, ""])


_HEAD = (
    "# HTTP",
    "",
    "What the planner answers over HTTP; the codes have [a page of their own](http-codes.md). `GET /openapi.json` says",
    "the same to programs. This page is generated from `gpadapters.http.openapi`; a test says whether it is current.",
    "",
    "| address | what it does | answer |",
    "|---|---|---|",
)


def _type(schema: Schema) -> str:
    """Return *schema* in a few words."""
    match schema:
        case {"$ref": str(ref)}:
            return _linked(ref.rpartition("/")[2])
        case {"anyOf": list(several)}:
            return " or ".join(map(_type, several))
        case {"enum": list(values)}:
            return " or ".join(f"`{'null' if value is None else value}`" for value in values)
        case {"type": "array", "items": dict(items)}:
            return f"list of {_type(items)}"
        case {"type": list(types)}:
            return " or ".join(types)
        case _:
            return str(schema["type"])


def _linked(name: str) -> str:
    return f"[{name}](#{name.lower()})" if name else ""
