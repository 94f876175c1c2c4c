"""What `gpctl get` shows, and which columns people see of it.

Rules of this file: data.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any

from gpadapters.cli.output import Column, changes, moment, targets

Json = Mapping[str, Any]


class Resource(enum.StrEnum):
    """What there is to get."""

    POOLS = "pools"
    BUDGET = "budget"
    DECISIONS = "decisions"
    OPERATIONS = "operations"
    FREEZES = "freezes"
    CONDITIONS = "conditions"


def _legs(legs: Sequence[Json]) -> str:
    """Return the writes of an operation with their stages, and the marks that their objects are to show."""
    return "; ".join(f"{changes([leg['changes']])}: {leg['stage']} ({leg['fence'] or '-'})" for leg in legs)


def _plainly(written: str) -> str:
    """Return what was *written* without stages and fences."""
    return ", ".join(leg.partition(": ")[0] for leg in written.split("; "))


COLUMNS: Mapping[Resource, Sequence[Column]] = {
    Resource.POOLS: [
        Column("PARTICIPANT", lambda pool: pool["participant"]),
        Column("ROLE", lambda pool: pool["role"]),
        Column("REPLICAS", lambda pool: pool["replicas"]),
        Column("READY", lambda pool: pool["ready"]),
        Column("GPUS/REPLICA", lambda pool: pool["gpus_per_replica"]),
        Column("CHARGED", lambda pool: pool["charged_gpus"]),
        Column("PRESENT", lambda pool: pool["present"], wide=True),
        Column("RELAYED", lambda pool: pool["relayed"], wide=True),
        Column("RESERVED", lambda pool: pool["reserved"], wide=True),
        Column("COMPONENT", lambda pool: pool["component"], wide=True),
        Column("ADAPTER", lambda pool: pool["authority"], wide=True),
    ],
    Resource.BUDGET: [
        Column("FLOOR", lambda budget: budget["floor"]),
        Column("CEILING", lambda budget: budget["ceiling"]),
        Column("CHARGED", lambda budget: budget["charged"]),
        Column("HEADROOM", lambda budget: budget["headroom"]),
        Column("UNKNOWN SHAPES", lambda budget: budget["shape_unknown"]),
        Column("LEAST", lambda budget: budget["least"], wide=True),
        Column("INTENTS", lambda budget: budget["intents"], wide=True),
        Column("OPERATIONS", lambda budget: budget["operations"], wide=True),
        Column("ESCROW", lambda budget: budget["escrow"], wide=True),
        Column("LEDGER", lambda budget: budget["ledger"]["state"], wide=True),
        Column("LEADER", lambda budget: budget["leader"], wide=True),
    ],
    Resource.DECISIONS: [
        Column("ID", lambda decision: decision["id"]),
        Column("AT", lambda decision: moment(decision["at"])),
        Column("PARTICIPANT", lambda decision: decision["participant"]),
        Column("ASKED", lambda decision: targets(decision["targets"])),
        Column("STATUS", lambda decision: decision["status"]),
        Column("WHY", lambda decision: decision["message"]),
        Column("CALLER", lambda decision: decision["caller"], wide=True),
        Column("OPERATION", lambda decision: decision["operation_id"], wide=True),
    ],
    Resource.OPERATIONS: [
        Column("ID", lambda operation: operation["id"]),
        Column("STATUS", lambda operation: operation["status"]),
        Column("PARTICIPANT", lambda operation: operation["participant"]),
        Column("CHANGES", lambda operation: changes(operation["plan"]) or _plainly(operation["written"])),
        Column("BEGAN", lambda operation: moment(operation["began_at"])),
        Column("ENDED", lambda operation: moment(operation["ended_at"])),
        Column("MESSAGE", lambda operation: operation["message"], wide=True),
        Column("WRITES", lambda operation: _legs(operation["legs"]) or operation["written"], wide=True),
        Column("CALLER", lambda operation: operation["caller"], wide=True),
    ],
    Resource.FREEZES: [
        Column("ID", lambda freeze: freeze["id"]),
        Column("DIRECTION", lambda freeze: freeze["direction"]),
        Column("POOLS", lambda freeze: freeze["pools"] or "all"),
        Column("UNTIL", lambda freeze: moment(freeze["until"])),
        Column("REASON", lambda freeze: freeze["reason"]),
        Column("BY", lambda freeze: freeze["by"]),
    ],
    Resource.CONDITIONS: [
        Column("KIND", lambda condition: condition["kind"]),
        Column("DETAIL", lambda condition: condition["detail"]),
    ],
}
"""What people see of each resource."""
