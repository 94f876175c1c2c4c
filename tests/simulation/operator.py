"""The operator of the simulation: it follows what objects ask for, late, by stale copies, and pods take their time.

Rules of this file: it acts once when it is told to, on one deployment; how long it lags is how seldom it is told.
"""

from collections import defaultdict
from random import Random

from tests.simulation.api import ADAPTERS, GRAPHS, Json, Key, ModelApi


class Operator:
    """Relay adapters to their graphs, run pods, and tell about them in the status.

    *stale* lets it relay what an adapter asked for earlier; *stuck* are pods that never end.
    """

    def __init__(self, api: ModelApi, rng: Random) -> None:
        self._api, self._rng = api, rng
        self.stale = self.stuck = False
        self.pods: dict[str, dict[str, int]] = defaultdict(dict)  # by uid of the graph, then by component
        self._observed: dict[str, Json] = {}

    def act(self, graph: Json) -> None:
        """Do one thing about *graph*, whatever is to be done."""
        deeds = (self._relay, self._observe, self._end, self._tell)
        self._rng.choice(deeds)(graph)

    def settle(self, graph: Json) -> None:
        """Do everything that is to be done."""
        for deed in (self._relay, self._observe, self._end, self._tell):
            deed(self._api.get(_key(graph)).body)

    def held(self, graph: Json, component: str) -> int:
        """Return the pods of *component* that run or are still shutting down."""
        return self.pods[graph["metadata"]["uid"]].get(component, 0)

    def begin(self, graph: Json) -> None:
        """Let all that *graph* asks for run already."""
        self._observe(graph)
        self._tell(graph)

    def _relay(self, graph: Json) -> None:
        for adapter in self._adapters(graph):
            wanted = adapter["spec"]["replicas"]
            if self.stale and self._rng.random() < 0.5:
                earlier = self._api.read(
                    _key(adapter, ADAPTERS), at=self._rng.randint(self._api.oldest, self._api.revision)
                )
                wanted = wanted if earlier is None else earlier["spec"]["replicas"]
            for place, part in enumerate(graph["spec"]["components"]):
                if part["name"] == adapter["spec"]["dgdRef"]["componentName"] and part["replicas"] != wanted:
                    write = {"op": "add", "path": f"/spec/components/{place}/replicas", "value": wanted}
                    self._api.patch(_key(graph), [write])

    def _observe(self, graph: Json) -> None:
        metadata = graph["metadata"]
        pods = self.pods[metadata["uid"]]
        self._observed[metadata["uid"]] = graph
        for part in graph["spec"]["components"]:
            pods[part["name"]] = max(pods.get(part["name"], 0), part["replicas"])

    def _end(self, graph: Json) -> None:
        uid = graph["metadata"]["uid"]
        if self.stuck or uid not in self._observed:
            return
        for part in self._observed[uid]["spec"]["components"]:
            self.pods[uid][part["name"]] = min(self.pods[uid][part["name"]], part["replicas"])

    def _tell(self, graph: Json) -> None:
        metadata = graph["metadata"]
        observed = self._observed.get(metadata["uid"])
        if observed is None:
            return
        parts = {}
        for part in observed["spec"]["components"]:
            count, gpus = self.pods[metadata["uid"]][part["name"]], _gpus(part)
            parts[part["name"]] = {
                "replicas": count,
                "readyReplicas": min(count, part["replicas"]),
                "gpusPerReplica": gpus,
                "gpusPerEngine": gpus,
            }
        status = {"observedGeneration": observed["metadata"]["generation"], "components": parts}
        self._api.patch(_key(graph), [{"op": "add", "path": "/status", "value": status}], status=True)

    def _adapters(self, graph: Json) -> list[Json]:
        name = graph["metadata"]["name"]
        return [one for one in self._api.listed(ADAPTERS)[1] if one["spec"]["dgdRef"]["name"] == name]


def _key(obj: Json, kind: str = GRAPHS) -> Key:
    return (kind, obj["metadata"]["namespace"], obj["metadata"]["name"])


def _gpus(part: Json) -> int:
    return int(part["podTemplate"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
