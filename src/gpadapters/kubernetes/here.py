"""Which Kubernetes namespace is meant where none is named.

Rules of this file: files are read, and no cluster is asked.
"""

import os
from pathlib import Path

from gpadapters.kubernetes.official import ConfigException, list_kube_config_contexts
from gpcore.errors import ConfigError

_OF_THE_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def namespace_here(*, kubeconfig: Path | None = None, context: str | None = None) -> str:
    """Return the namespace of the pod, or else of *context* (None: the current one) in *kubeconfig*, or `default`."""
    if kubeconfig is None and context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return _OF_THE_POD.read_text().strip() if _OF_THE_POD.exists() else "default"
    try:
        contexts, current = list_kube_config_contexts(None if kubeconfig is None else str(kubeconfig))
        named = current if context is None else next(one for one in contexts if one["name"] == context)
        return str(named["context"].get("namespace") or "default")
    except StopIteration:
        raise ConfigError([f"the kubeconfig has no context {context!r}"]) from None
    except (ConfigException, OSError, TypeError, AttributeError, KeyError, ValueError) as fault:
        where = "the default kubeconfig" if kubeconfig is None else str(kubeconfig)
        raise ConfigError([f"{where} is not usable: {fault}"]) from fault
