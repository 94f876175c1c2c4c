"""Which namespace is meant where none is named."""

import json
from pathlib import Path

import pytest

from gpadapters.kubernetes.here import namespace_here
from gpcore.errors import ConfigError


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    contexts = [
        {"name": "llm", "context": {"cluster": "a", "user": "a", "namespace": "inference"}},
        {"name": "bare", "context": {"cluster": "a", "user": "a"}},
    ]
    config = {"apiVersion": "v1", "kind": "Config", "contexts": contexts, "current-context": "llm"}
    named: list[dict[str, object]] = [{"name": "a", "cluster": {"server": "https://planner.example"}, "user": {}}]
    path.write_text(json.dumps(config | {"clusters": named, "users": named}))
    return path


def test_the_current_contexts_namespace_is_meant(kubeconfig: Path) -> None:
    assert namespace_here(kubeconfig=kubeconfig) == "inference"


def test_a_context_that_names_none_means_default(kubeconfig: Path) -> None:
    assert namespace_here(kubeconfig=kubeconfig, context="bare") == "default"


def test_a_context_that_is_not_there_is_a_wrong_configuration(kubeconfig: Path) -> None:
    with pytest.raises(ConfigError, match="no context 'other'"):
        namespace_here(kubeconfig=kubeconfig, context="other")


@pytest.mark.parametrize("text", ["", "[]", "{}", "current-context: a"])
def test_a_file_that_is_no_kubeconfig_is_a_wrong_configuration(text: str, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not usable"):
        namespace_here(kubeconfig=path)


def test_a_pod_without_a_kubeconfig_means_default_where_its_account_does_not_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    assert namespace_here() == "default"
