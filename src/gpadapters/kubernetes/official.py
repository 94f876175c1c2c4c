"""The part of the official client that is used here: how to find a cluster and prove who one is.

Importing `kubernetes` runs the import of its two clients, of which each brings 700 classes of models: 110 MB, of which
the synchronous one's are a third, for a file with an address and a token.

Rules of this file: what is loaded here is a copy of our own. Whoever imports `kubernetes`, before or after, gets the
whole, as if this file did not exist.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_NAME = "kubernetes"


def _loaded() -> tuple[ModuleType, ModuleType]:
    """Return the modules of the client's configuration and of its loaders, without running the package's own code."""
    if _NAME in sys.modules:
        return import_module(f"{_NAME}.aio.client"), import_module(f"{_NAME}.aio.config")
    spec = find_spec(_NAME)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {_NAME!r}", name=_NAME)
    bare = ModuleType(_NAME)
    bare.__path__ = spec.submodule_search_locations
    sys.modules[_NAME] = bare
    try:
        return import_module(f"{_NAME}.aio.client"), import_module(f"{_NAME}.aio.config")
    finally:
        for name in [name for name in sys.modules if name == _NAME or name.startswith(f"{_NAME}.")]:
            del sys.modules[name]


_client, _config = _loaded()

Configuration = _client.Configuration
ConfigException: type[Exception] = _config.ConfigException
list_kube_config_contexts = _config.list_kube_config_contexts
load_incluster_config = _config.load_incluster_config
load_kube_config = _config.load_kube_config
