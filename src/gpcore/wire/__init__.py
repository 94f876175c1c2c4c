"""The JSON form of requests, decisions, records and scenarios; the only part of the core that knows JSON."""

from gpcore.wire.answers import (
    budget_json,
    decided_json,
    decision_json,
    operation_json,
    outcome_message,
    plan_json,
    pool_json,
    pools_json,
    reason_json,
    scale_request_json,
    scale_response,
    status,
)
from gpcore.wire.documents import MAX_DEPTH, MAX_DIGITS, Extras, Json, dumps, loads
from gpcore.wire.holding import (
    AskedFreeze,
    asked_freeze,
    condition_json,
    ended_json,
    freeze_json,
    record_json,
    under_way_json,
)
from gpcore.wire.requests import API_VERSION, scale_request
from gpcore.wire.routing import MAX_CONFIG_BYTES, RoutingConfig, routing_config
from gpcore.wire.scenarios import Scenario, invalid_verdict, scenario, verdict

__all__ = [
    "API_VERSION",
    "MAX_CONFIG_BYTES",
    "MAX_DEPTH",
    "MAX_DIGITS",
    "AskedFreeze",
    "Extras",
    "Json",
    "RoutingConfig",
    "Scenario",
    "asked_freeze",
    "budget_json",
    "condition_json",
    "decided_json",
    "decision_json",
    "dumps",
    "ended_json",
    "freeze_json",
    "invalid_verdict",
    "loads",
    "operation_json",
    "outcome_message",
    "plan_json",
    "pool_json",
    "pools_json",
    "reason_json",
    "record_json",
    "routing_config",
    "scale_request",
    "scale_request_json",
    "scale_response",
    "scenario",
    "status",
    "under_way_json",
    "verdict",
]
