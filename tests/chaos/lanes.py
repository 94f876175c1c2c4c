"""A place where planners are hurt: a namespace, its deployments and ledger, four planners, and the monitor.

Rules of this file: what it says of the ledger is read from the API server, what it says of the ceiling comes from the
monitor. A request is asked of whoever answers, again and again with the same id, as any caller would.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx

from gpadapters.kubernetes.crd import API_VERSION, PLURAL, definition
from gpadapters.kubernetes.lease import LEADER_ADDRESS
from gpcore.ledger import Ledger
from gpcore.wire.ledgers import ledger as read_ledger
from tests.chaos.monitor import Found, Ledgers, Monitor
from tests.chaos.planners import Planner, Planners
from tests.cluster import (
    ApiError,
    ApiServer,
    Client,
    Json,
    components_of,
    eventually,
    existing_is_fine,
    graphs,
    path_of,
)
from tests.cluster.objects import replicas_pointer

Answer = dict[str, Any]

LEASE = ("--lease-duration-seconds", "2", "--lease-deadline-seconds", "1.3", "--lease-retry-seconds", "0.3")
PATIENCE_S = 60.0
_AGAIN = {
    "busy",
    "ledger_down",
    "not_leading",
    "not_ready",
    "overloaded",
    "stopping",
    "unsettled",
    "view_stale",
}
_PAUSE_S = 0.1
_ANSWER_S = 5.0


def ledgers(namespace: str) -> str:
    """Return the path of the ledgers in *namespace*."""
    return path_of(API_VERSION, PLURAL, namespace=namespace)


def install_ledgers(client: Client) -> None:
    """Create the definition of ledgers where it is missing, and wait until they are served."""
    with existing_is_fine():
        client.create(definition())

    def served() -> bool:
        try:
            client.get(path_of(API_VERSION, PLURAL))
        except ApiError:
            return False
        return True

    eventually(served)


def promised(obj: Json) -> int:
    """Return the GPUs that a ledger promises."""
    return read_ledger(obj["spec"]).totals.charged


@attrs.frozen
class Lane:
    """Planners of the deployments of *namespace*, under one *ceiling*."""

    client: Client
    namespace: str
    ceiling: int
    planners: Planners
    monitor: Monitor
    http: httpx.Client

    def ledger(self) -> Ledger:
        """Return the ledger as it is stored; an empty one where there is none."""
        stored = self.client.items(ledgers(self.namespace))
        return read_ledger(stored[0]["spec"]) if stored else Ledger()

    def settled(self) -> bool:
        """Say whether nothing is under way, and the ledger says of every object what is there."""
        ledger = self.ledger()
        entries = [ledger.entries[key] for key in ledger.entries]
        known = {(one.key.participant.name, each.role.value): each.replicas for one in entries for each in one.held}
        return ledger.complete and not len(ledger.pending) and not ledger.operations and known == self.replicas()

    def replicas(self) -> dict[tuple[str, str], int]:
        """Return the replicas of every pool by deployment and role, as they are asked for."""
        return {
            (one["metadata"]["name"], str(part.type)): part.wanted
            for one in self.client.items(graphs(self.namespace))
            for part in components_of(one)
            if part.gpus_per_replica
        }

    def ask(self, name: str, *, within_s: float = PATIENCE_S, **wanted: int) -> Answer:
        """Ask for these replicas of deployment *name*, again and again until it is decided and done, or refused."""
        request = self.request(name, wanted)
        last: Answer | None = None
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for one in self.planners.all:
                last = self._post(one.url, request)
                if last is not None and not _again(last):
                    return last
            time.sleep(_PAUSE_S)
        raise TimeoutError(f"{request}: not answered within {within_s} s, but {last}")

    def once(self, name: str, **wanted: int) -> Answer | None:
        """Ask the leader once, and return what it answers, or None where it does not."""
        return self._post(self.leader().url, self.request(name, wanted))

    def request(self, name: str, wanted: dict[str, int]) -> Json:
        """Return the document of a request by the deployment's own planner."""
        targets = [{"sub_component_type": role, "desired_replicas": count} for role, count in wanted.items()]
        return {
            "caller_namespace": f"{self.namespace}-{name}",
            "graph_deployment_name": name,
            "k8s_namespace": self.namespace,
            "target_replicas": targets,
        }

    def events(self) -> list[str]:
        """Return the Events of the namespace, each as its JSON."""
        listed = self.client.items(path_of("events.k8s.io/v1", "events", namespace=self.namespace))
        return [json.dumps(one) for one in listed]

    def leader(self) -> Planner:
        """Return the planner that leads, when one does."""
        return eventually(self._leader, within_s=PATIENCE_S)  # type: ignore[return-value]

    def _leader(self) -> Planner | None:
        leases = self.client.items(path_of("coordination.k8s.io/v1", "leases", namespace=self.namespace))
        told = {one["metadata"].get("annotations", {}).get(LEADER_ADDRESS) for one in leases}
        return next((one for one in self.planners.all if one.url and one.url in told), None)

    @contextmanager
    def without(self, planner: Planner) -> Iterator[None]:
        """Ask *planner* nothing while the body runs, since it could not answer."""
        url, planner.url = planner.url, ""
        try:
            yield
        finally:
            planner.url = url

    def rewrite(self, name: str, component: str, replicas: int) -> None:
        """Write the replicas of *component* as somebody else would."""
        path = graphs(self.namespace, name)
        pointer = replicas_pointer(self.client.get(path), component)
        self.client.patch(path, [{"op": "replace", "path": pointer, "value": replicas}])

    def _post(self, url: str, request: Json) -> Answer | None:
        """Return the answer, or None where nobody gave one."""
        if not url:
            return None
        with contextlib.suppress(httpx.HTTPError, ValueError):
            answer: Answer = self.http.post(f"{url}/v1/scale", json=request).json()
            return answer
        return None

    def at_rest(self) -> Found:
        """Wait until nothing is under way any more, and return what the monitor found up to then."""
        eventually(self.settled, within_s=PATIENCE_S, every_s=0.1)
        return self.monitor.found()


def _again(answer: Answer) -> bool:
    """Say whether it is worth asking again: nothing was decided, or it is not done."""
    return answer["status"] == "scaling" or (answer.get("reason") or {}).get("kind") in _AGAIN


@contextmanager
def lane(
    server: ApiServer,
    folder: Path,
    *,
    ceiling: int,
    floor: int = 0,
    deployments: Sequence[Json] = (),
    flags: Sequence[str] = LEASE,
    count: int = 4,
    ledger_watched: bool = True,
) -> Iterator[Lane]:
    """Make a namespace with *deployments*, and let *count* planners and the monitor run there.

    Where somebody else writes nonsense into the ledger, it cannot be held against the ceiling: not *ledger_watched*.
    """
    install_ledgers(server.client)
    namespace = server.namespace("lane")
    for one in deployments:
        server.client.create(one, namespace=namespace)
    budget = ("--ledger", "kubernetes", "--max-total-gpus", str(ceiling), "--min-total-gpus", str(floor))
    planners = Planners(server.admin, namespace, folder, *budget, *flags, count=count)
    watched = Ledgers(ledgers(namespace), promised) if ledger_watched else None
    with (
        Monitor(server.client, namespace, ceiling=ceiling, ledgers=watched) as monitor,
        planners,
        httpx.Client(timeout=_ANSWER_S, trust_env=False) as http,
    ):
        yield Lane(server.client, namespace, ceiling, planners, monitor, http)
