"""The API server of the chaos tests; the fixtures are those of the end-to-end tests."""

from tests.e2e.conftest import api_server, assets, client, cluster, conversion, namespace, operator, served

__all__ = ["api_server", "assets", "client", "cluster", "conversion", "namespace", "operator", "served"]
