"""A world for the router: pools as small processes that behave badly on demand, the router itself, and raw clients."""

from tests.routerworld.answers import Answer, Raw, chat
from tests.routerworld.pools import FakePool
from tests.routerworld.routers import RouterProcess, aggregated, disaggregated

__all__ = ["Answer", "FakePool", "Raw", "RouterProcess", "aggregated", "chat", "disaggregated"]
