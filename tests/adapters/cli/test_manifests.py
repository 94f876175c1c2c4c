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


def of_kind(objects: list[Json], kind: str, name: str = "global-planner") -> Json:
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def container(objects: list[Json]) -> Json:
    (found,) = of_kind(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_all_that_a_planner_needs_is_printed_in_order_of_need(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = [one["kind"] for one in printed(capsys)]
    assert kinds == [
        "CustomResourceDefinition",
        "ServiceAccount",
        *("Role", "RoleBinding"),
        *("Role", "RoleBinding"),
        "NetworkPolicy",
        "Service",
        "Deployment",
    ]


def test_json_is_one_list_of_the_same_objects(capsys: pytest.CaptureFixture[str]) -> None:
    objects = printed(capsys)
    assert main(["manifests", "planner", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"apiVersion": "v1", "kind": "List", "items": objects}


def test_the_planner_may_follow_and_scale_deployments_and_tell_of_it_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert of_kind(printed(capsys), "Role")["rules"] == [
        {
            "apiGroups": ["nvidia.com"],
            "resources": ["dynamographdeployments", "dynamographdeploymentscalingadapters"],
            "verbs": ["get", "list", "watch", "patch"],
        },
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
    ]


def test_it_may_follow_pods_where_releases_are_confirmed_by_them(capsys: pytest.CaptureFixture[str]) -> None:
    rules = of_kind(printed(capsys, "--confirm-release", "pods"), "Role")["rules"]
    assert rules[-1] == {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}


def test_it_may_make_one_ledger_and_one_lease_and_delete_neither(capsys: pytest.CaptureFixture[str]) -> None:
    objects = printed(capsys, "--namespace", "gp", "--kubernetes-namespaces", "llm", "--budget-domain", "h100")
    role = of_kind(objects, "Role", "global-planner-ledger")
    assert role["metadata"]["namespace"] == "gp"
    assert [(rule["resources"], rule.get("resourceNames"), rule["verbs"]) for rule in role["rules"]] == [
        (["gpuledgers"], None, ["create"]),
        (["gpuledgers"], ["h100"], ["get", "patch"]),
        (["leases"], None, ["create"]),
        (["leases"], ["gp-h100"], ["get", "patch"]),
        (["events"], None, ["create"]),
    ]
    binding = of_kind(objects, "RoleBinding", "global-planner-ledger")
    assert binding["metadata"]["namespace"] == "gp"
    assert binding["roleRef"]["name"] == "global-planner-ledger"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "global-planner", "namespace": "gp"}]


def test_the_definition_is_that_of_gpctl_crd_and_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    objects = printed(capsys)
    assert main(["crd"]) == 0
    text = capsys.readouterr().out
    assert list(yaml.safe_load_all(text)) == objects[:1]
    assert "&id" not in text
    assert main(["crd", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == objects[:1]


def test_it_has_its_rights_in_each_namespace_that_it_watches_and_in_no_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    objects = printed(capsys, "--namespace", "gp", "--kubernetes-namespaces", "llm-a", "llm-b")
    roles = [one for one in objects if one["kind"].startswith("Role") and one["metadata"]["namespace"] != "gp"]
    places = [(one["kind"], one["metadata"]["namespace"]) for one in roles]
    assert places == [("Role", "llm-a"), ("Role", "llm-b"), ("RoleBinding", "llm-a"), ("RoleBinding", "llm-b")]
    (subject,) = next(one for one in objects if one["kind"] == "RoleBinding")["subjects"]
    assert (subject["name"], subject["namespace"]) == ("global-planner", "gp")


def test_an_account_that_runs_a_planner_already_gets_a_ledger_and_the_same_rights_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--namespace", "gp", "--kubernetes-namespaces", "llm-a", "llm-b"]
    every = printed(capsys, *flags)
    definition, *rights = printed(capsys, *flags, "--service-account", "planner-serviceaccount")
    assert definition == every[0]
    assert [one for one in rights if one["kind"] == "Role"] == [one for one in every if one["kind"] == "Role"]
    subject = {"kind": "ServiceAccount", "name": "planner-serviceaccount", "namespace": "gp"}
    assert [one["subjects"] for one in rights if one["kind"] == "RoleBinding"] == [[subject]] * 3
    assert {one["kind"] for one in rights} == {"Role", "RoleBinding"}


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


def test_a_planner_is_ready_before_the_one_goes_that_it_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    spec = of_kind(printed(capsys, "--replicas", "3"), "Deployment")["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_planners_that_share_no_ledger_are_never_two(capsys: pytest.CaptureFixture[str]) -> None:
    objects = printed(capsys, "--ledger", "memory")
    spec = of_kind(objects, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert not [one for one in objects if one["metadata"]["name"] == "global-planner-ledger"]


def test_the_pod_knows_where_it_is_and_where_others_reach_it(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in container(printed(capsys))["env"]}
    assert environment == {"POD_NAMESPACE": "metadata.namespace", "POD_IP": "status.podIP"}


def test_the_pod_keeps_to_the_restricted_standard(capsys: pytest.CaptureFixture[str]) -> None:
    spec = of_kind(objects := printed(capsys), "Deployment")["spec"]
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
    definition, *objects = printed(capsys, "--name", "budget")
    assert set(definition["metadata"]["labels"]) == {f"app.kubernetes.io/{name}" for name in ("part-of", "managed-by")}
    for one in objects:
        assert set(one["metadata"]["labels"]) == {f"app.kubernetes.io/{name}" for name in names}
        assert one["metadata"]["name"] in {"budget", "budget-ledger"}


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
        (["--advertise", "http://x"], "--advertise is not for manifests"),
        (["--ledger", "sqlite:f"], "--ledger sqlite is not for manifests"),
        (["--replicas", "0"], "--replicas must be 1 to 10: 0"),
        (["--replicas", "11"], "--replicas must be 1 to 10: 11"),
        (["--replicas", "2", "--ledger", "memory"], "--replicas must be 1 with --ledger memory"),
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
