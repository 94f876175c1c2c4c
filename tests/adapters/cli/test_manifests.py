"""`gpctl manifests planner`: what it prints can run, may do little, and is honest about what it does not check."""

import json
from typing import Any

import pytest
import yaml

from gpadapters.cli import main
from gpadapters.cli.options import settings

Json = dict[str, Any]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Json]:
    assert main(["manifests", "planner", *arguments]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def of_kind(objects: list[Json], kind: str) -> Json:
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


def container(objects: list[Json]) -> Json:
    (found,) = of_kind(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_all_that_a_planner_needs_is_printed_in_order_of_need(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = [one["kind"] for one in printed(capsys)]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Service", "Deployment"]


def test_json_is_one_list_of_the_same_objects(capsys: pytest.CaptureFixture[str]) -> None:
    objects = printed(capsys)
    assert main(["manifests", "planner", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"apiVersion": "v1", "kind": "List", "items": objects}


def test_the_planner_may_follow_and_scale_deployments_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert of_kind(printed(capsys), "Role")["rules"] == [
        {
            "apiGroups": ["nvidia.com"],
            "resources": ["dynamographdeployments", "dynamographdeploymentscalingadapters"],
            "verbs": ["get", "list", "watch", "patch"],
        }
    ]


def test_it_has_its_rights_in_each_namespace_that_it_watches_and_in_no_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    objects = printed(capsys, "--namespace", "gp", "--kubernetes-namespaces", "llm-a", "llm-b")
    places = [(one["kind"], one["metadata"]["namespace"]) for one in objects if one["kind"].startswith("Role")]
    assert places == [("Role", "llm-a"), ("Role", "llm-b"), ("RoleBinding", "llm-a"), ("RoleBinding", "llm-b")]
    (subject,) = next(one for one in objects if one["kind"] == "RoleBinding")["subjects"]
    assert (subject["name"], subject["namespace"]) == ("global-planner", "gp")


def test_an_account_that_runs_a_planner_already_gets_the_same_rights_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--namespace", "gp", "--kubernetes-namespaces", "llm-a", "llm-b"]
    every = printed(capsys, *flags)
    objects = printed(capsys, *flags, "--service-account", "planner-serviceaccount")
    assert [one["kind"] for one in objects] == ["Role", "Role", "RoleBinding", "RoleBinding"]
    assert objects[:2] == [one for one in every if one["kind"] == "Role"]
    subject = {"kind": "ServiceAccount", "name": "planner-serviceaccount", "namespace": "gp"}
    assert [one["subjects"] for one in objects[2:]] == [[subject]] * 2


def test_the_guides_arguments_reach_the_planner_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    guide = ["--managed-namespaces", "llm-gp-prefill-0", "llm-gp-decode-0", "--max-total-gpus", "16"]
    arguments = container(printed(capsys, *guide))["args"]
    assert arguments[-len(guide) :] == guide
    started = settings(arguments, environ={"POD_NAMESPACE": "llm"})
    assert (started.rules.budget.ceiling, started.log_format) == (16, "json")


def test_callers_that_are_not_authenticated_are_visible_and_the_network_keeps_strangers_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    objects = printed(capsys, "--allow-namespaces", "monitoring")
    assert "--insecure-no-auth" in container(objects)["args"]
    assert "not authenticate" in of_kind(objects, "Deployment")["metadata"]["annotations"]["kubernetes.io/description"]
    spec = of_kind(objects, "NetworkPolicy")["spec"]
    planners, monitoring = spec["ingress"][0]["from"]
    assert planners["podSelector"]["matchLabels"] == {"nvidia.com/dynamo-component-type": "planner"}
    assert planners["namespaceSelector"]["matchExpressions"][0]["values"] == ["default"]
    assert monitoring["namespaceSelector"]["matchExpressions"][0]["values"] == ["monitoring"]
    assert (
        spec["podSelector"]["matchLabels"].items()
        <= of_kind(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    )


def test_the_pod_keeps_to_the_restricted_standard_and_is_never_two(capsys: pytest.CaptureFixture[str]) -> None:
    spec = of_kind(objects := printed(capsys), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert spec["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert spec["template"]["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(objects)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    probes = {name: container(objects)[name]["httpGet"]["path"] for name in ("readinessProbe", "livenessProbe")}
    assert probes == {"readinessProbe": "/readyz", "livenessProbe": "/healthz"}


def test_every_object_carries_the_recommended_labels(capsys: pytest.CaptureFixture[str]) -> None:
    names = {"name", "instance", "version", "component", "part-of", "managed-by"}
    for one in printed(capsys, "--name", "budget"):
        assert set(one["metadata"]["labels"]) == {f"app.kubernetes.io/{name}" for name in names}
        assert one["metadata"]["name"] == "budget"


def test_no_right_is_a_wildcard(capsys: pytest.CaptureFixture[str]) -> None:
    main(["manifests", "planner", "--managed-namespaces"])
    assert "*" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--max-total-gpus", "-5"], "--max-total-gpus: must be a number of GPUs"),
        (["--config", "f.yaml"], "--config is not for manifests"),
        (["--listen", "0.0.0.0:80"], "--listen is not for manifests"),
        (["--environment", "memory", "--fleet", "f"], "--environment memory is not for manifests"),
        (["--kubeconfig", "f"], "--kubeconfig is not for manifests"),
        (["--insecure-no-auth"], "--insecure-no-auth is not for manifests"),
        (["--port", "0"], "--port must be 1 to 65535: 0"),
        (["--namespace", "A"], "--namespace: namespace must be an RFC 1123 label"),
        (["--allow-namespaces", "*"], "--allow-namespaces: namespace must be"),
        (["--name", "-a"], "expected one argument"),
        (["--name", "1a"], "--name must be at most 63"),
        ([], "the following arguments are required: planner"),
    ],
)
def test_what_would_not_start_is_not_printed(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["manifests", *(["planner"] if arguments else []), *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert problem in told.err
