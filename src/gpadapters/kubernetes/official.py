"""The part of the official client that is used here: how to find a cluster and prove who one is.

Importing `kubernetes` runs the import of its two clients, of which each brings 700 classes of models: 110 MB and half
a second, for a file with an address and a token.

Rules of this file: what is loaded here is a copy of our own, without what the packages above it would load. Whoever
imports `kubernetes`, before or after, gets the whole, as if this file did not exist.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

_NAME = "kubernetes"
_CLIENT = f"{_NAME}.aio.client"
_CONFIG = f"{_NAME}.aio.config"


def _loaded() -> tuple[ModuleType, ModuleType]:
    """Return the modules of the client's configuration and of its loaders, without running their packages' own code."""
    if _NAME in sys.modules:
        return import_module(_CLIENT), import_module(_CONFIG)
    spec = find_spec(_NAME)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {_NAME!r}", name=_NAME)
    try:
        for name in (_NAME, f"{_NAME}.aio", _CLIENT):
            sys.modules[name] = bare = ModuleType(name)
            below = name.split(".")[1:]
            bare.__path__ = [str(Path(place, *below)) for place in spec.submodule_search_locations]
        # The loaders take two names from it: the configuration, and what makes a client, which nobody here does.
        client = vars(sys.modules[_CLIENT])
        client["Configuration"] = import_module(f"{_CLIENT}.configuration").Configuration
        client["ApiClient"] = None
        return sys.modules[_CLIENT], import_module(_CONFIG)
    finally:
        for name in [name for name in sys.modules if name == _NAME or name.startswith(f"{_NAME}.")]:
            del sys.modules[name]


_client, _config = _loaded()

Configuration = _client.Configuration
ConfigException: type[Exception] = _config.ConfigException
list_kube_config_contexts = _config.list_kube_config_contexts
load_incluster_config = _config.load_incluster_config
load_kube_config = _config.load_kube_config
