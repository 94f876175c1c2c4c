"""A cluster for tests and benchmarks: a real API server, Dynamo's objects, and a stand-in for its operator."""

from tests.cluster.apiserver import ApiServer, Options, StartError, existing_is_fine
from tests.cluster.client import Access, ApiError, Client, Json, Watch, path_of
from tests.cluster.conversion import converted, webhook
from tests.cluster.crds import BOTH, V1ALPHA1, V1BETA1, Served, adapters, graphs, install
from tests.cluster.objects import Component, components_of, create_all, disaggregated, fleet, graph, pool
from tests.cluster.operator import Behaviour, FakeOperator, OperatorProcess
from tests.cluster.rights import STOCK, grant, rule
from tests.cluster.topologies import deploy, topology
from tests.cluster.waiting import eventually

__all__ = [
    "BOTH",
    "STOCK",
    "V1ALPHA1",
    "V1BETA1",
    "Access",
    "ApiError",
    "ApiServer",
    "Behaviour",
    "Client",
    "Component",
    "FakeOperator",
    "Json",
    "OperatorProcess",
    "Options",
    "Served",
    "StartError",
    "Watch",
    "adapters",
    "components_of",
    "converted",
    "create_all",
    "deploy",
    "disaggregated",
    "eventually",
    "existing_is_fine",
    "fleet",
    "grant",
    "graph",
    "graphs",
    "install",
    "path_of",
    "pool",
    "rule",
    "topology",
    "webhook",
]
