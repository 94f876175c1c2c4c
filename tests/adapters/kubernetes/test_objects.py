"""From the bytes of Dynamo's objects to the deployments that the budget counts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpadapters.kubernetes.fleet import Joined, Reach, joined
from gpadapters.kubernetes.gpus import Shape
from gpadapters.kubernetes.objects import claim_of, read_adapter, read_graph
from gpadapters.kubernetes.schema import FENCE
from gpcore.pools import Authority, Deployment, Role
from tests.adapters.kubernetes.scripted import DOMAIN
from tests.cluster.topologies import NAMES, topology

Json = dict[str, Any]


def dgd(*components: Json, status: Json | None = None, generation: int = 1, **spec: Any) -> Json:  # noqa: ANN401
    metadata = {"name": "a", "namespace": "ns", "uid": "u1", "resourceVersion": "7", "generation": generation}
    return {"metadata": metadata, "spec": {"components": list(components), **spec}, "status": status or {}}


def alpha(**services: Json | None) -> Json:
    return dgd() | {"spec": {"services": services}}


def worker(kind: str | None = "prefill", *, name: object = "w", gpus: object = "2", **more: Any) -> Json:  # noqa: ANN401
    amounts = {} if gpus is None else {"nvidia.com/gpu": gpus}
    pod = {"containers": [{"name": "main", "resources": {"limits": amounts}}]}
    component = {"name": name, "type": kind, "replicas": 3, "podTemplate": {"spec": pod}}
    return {key: value for key, value in (component | more).items() if value is not ...}


def dgdsa(component: str | None = "w", *, replicas: object = 4, name: str = "a-w", **reference: Any) -> Json:  # noqa: ANN401
    metadata = {"name": name, "namespace": "ns", "uid": f"u-{name}", "resourceVersion": "8", "generation": 1}
    target = {"name": "a", "componentName": component} | reference
    return {"metadata": metadata, "spec": {"replicas": replicas, "dgdRef": target}}


def raw(obj: object) -> bytes:
    return json.dumps(obj).encode()


def join(obj: Json, *adapters: Json, shapes: dict[str, Shape] | None = None, served: bool = True) -> Joined:
    graph, known = read_graph(raw(obj)), [read_adapter(raw(one)) for one in adapters]
    return joined(graph, known, shapes or {}, reach=Reach(served=served), domain=DOMAIN)


def read(obj: Json, *adapters: Json) -> Deployment:
    return join(obj, *adapters).deployment


def counted(obj: Json) -> int | None:
    """Give the GPUs per replica of the one pool."""
    (pool,) = read(obj).pools
    return pool.gpus_per_replica


def told(*, observed: int | None = 1, **counts: object) -> Json:
    return {"observedGeneration": observed, "components": {"w": counts}}


class TestRoles:
    @pytest.mark.parametrize("role", list(Role))
    def test_a_component_of_a_type_that_is_a_role_is_its_pool(self, role: Role) -> None:
        (pool,) = read(dgd(worker(role.value))).pools
        assert (pool.key.role, pool.component, pool.replicas, pool.charged_gpus) == (role, "w", 3, 6)

    @pytest.mark.parametrize(
        ("service", "role"),
        [
            ({"componentType": "worker", "subComponentType": "decode"}, Role.DECODE),
            ({"subComponentType": "prefill"}, Role.PREFILL),
            ({"componentType": "prefill"}, Role.PREFILL),
            ({"componentType": "worker"}, Role.WORKER),
        ],
    )
    def test_a_service_of_v1alpha1_says_its_role_beside_its_type(self, service: Json, role: Role) -> None:
        (pool,) = read(alpha(w=service)).pools
        assert (pool.key.role, pool.component) == (role, "w")

    @pytest.mark.parametrize("kind", [None, "frontend", "planner", "epp", "router"])
    def test_helpers_are_a_fixed_charge(self, kind: str | None) -> None:
        deployment = read(dgd(worker(kind)))
        assert (deployment.pools, deployment.fixed_gpus) == ((), 6)

    @pytest.mark.parametrize("kind", ["worker", "prefill"])
    def test_two_components_of_one_role_are_a_fixed_charge_and_a_problem(self, kind: str) -> None:
        deployment = read(dgd(worker(kind), worker(kind, name="x", gpus="1")))
        assert (deployment.pools, deployment.fixed_gpus) == ((), 9)
        assert deployment.problems == (f"2 components are of the role {kind}: w, x; none of them is scaled",)

    def test_what_a_helper_holds_is_what_is_asked_for_or_what_is_there(self) -> None:
        assert read(dgd(worker(None), status=told(replicas=5))).fixed_gpus == 10

    @pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
    @pytest.mark.parametrize(
        ("name", "charges"),
        [
            (NAMES[0], {"gp-ctrl": 0, "gp-prefill-0": 1, "gp-prefill-1": 2, "gp-decode-0": 1}),
            (NAMES[1], {"gp-ctrl": 0, "model-a": 2, "model-b": 2}),
            (NAMES[2], {"gp-ctrl": 0, "gp-prefill-0": 0, "gp-prefill-1": 0, "gp-decode-0": 0, "gp-decode-1": 0}),
        ],
    )
    def test_the_guides_topologies_are_read_alike_in_both_versions(
        self, name: str, charges: dict[str, int], version: str
    ) -> None:
        graphs = [obj for obj in topology(name, namespace="ns", version=version) if "DynamoGraph" in obj["kind"]]
        for obj in graphs:
            obj["metadata"] |= {"namespace": "ns", "uid": "u", "resourceVersion": "1", "generation": 1}
        deployments = [read(obj) for obj in graphs]
        assert all(one.shape_known and not one.problems for one in deployments)
        assert {one.id.name: one.totals.charged for one in deployments} == charges


class TestReplicas:
    @pytest.mark.parametrize(("written", "replicas"), [(..., 1), (None, 1), (0, 0), (3.0, 3)])
    def test_absent_means_one(self, written: object, replicas: int) -> None:
        (pool,) = read(dgd(worker(replicas=written))).pools
        assert pool.replicas == replicas

    @pytest.mark.parametrize("written", [-1, 2**31, 1.5, "3", True, [3]])
    def test_what_is_no_count_makes_the_shape_unknown(self, written: object) -> None:
        deployment = read(dgd(worker(replicas=written)))
        assert not deployment.shape_known
        assert deployment.problems == (f"component w: its replicas are {written!r}",)

    def test_present_is_the_most_that_the_status_shows_and_ready_what_serves(self) -> None:
        counts = {"replicas": 4, "updatedReplicas": 2, "readyReplicas": 3, "availableReplicas": 1}
        (pool,) = read(dgd(worker(), status=told(**counts))).pools
        assert (pool.present, pool.ready) == (4, 1)
        del counts["availableReplicas"]
        (pool,) = read(dgd(worker(), status=told(**counts))).pools
        assert pool.ready == 3

    def test_a_negative_count_in_the_status_makes_the_shape_unknown(self) -> None:
        assert not read(dgd(worker(), status=told(replicas=-4))).shape_known

    def test_the_status_of_a_component_that_does_not_exist_counts_nothing(self) -> None:
        status = {"observedGeneration": 1, "components": {"x": {"replicas": 9}}}
        assert read(dgd(worker(), status=status)).totals.charged == 6


class TestGpus:
    @pytest.mark.parametrize(
        ("amount", "gpus"),
        [("0", 0), ("2", 2), (2, 2), ("1.5", None), ("1e3", None), ("1k", None), ("500m", None), (" 2 ", None),
         ("-1", None), (True, None), ("", None), ("٣", None), ("9" * 400, None)],
    )  # fmt: skip
    def test_a_quantity_is_a_plain_count_or_unknown(self, amount: object, gpus: int | None) -> None:
        assert counted(dgd(worker(gpus=amount))) == gpus

    @pytest.mark.parametrize(
        ("name", "gpus"),
        [("amd.com/gpu", 2), ("gpu.intel.com/xe", 2), ("gpu.intel.com/i915", 2), ("nvidia.com/mig-1g.10gb", 2),
         ("nvidia.com/gpu.shared", 2), ("cpu", 0), ("gpu.intel.com/millicores", 0), ("rdma/hca", 0)],
    )  # fmt: skip
    def test_devices_of_other_makers_and_slices_of_one_count(self, name: str, gpus: int) -> None:
        pod = {"containers": [{"name": "main", "resources": {"limits": {name: "2"}}}]}
        assert counted(dgd(worker(podTemplate={"spec": pod}))) == gpus

    @pytest.mark.parametrize(
        ("resources", "gpus"),
        [
            ({"requests": {"nvidia.com/gpu": "2"}}, 2),
            ({"limits": {"nvidia.com/gpu": "4"}, "requests": {"nvidia.com/gpu": "2"}}, 4),
            ({"limits": {"nvidia.com/gpu": "4", "amd.com/gpu": "1"}}, 5),
            ({"claims": [{"name": "gpu"}]}, None),
            ({}, 0),
        ],
    )
    def test_limits_and_requests(self, resources: Json, gpus: int | None) -> None:
        pod = {"containers": [{"name": "main", "resources": resources}]}
        assert counted(dgd(worker(podTemplate={"spec": pod}))) == gpus

    def test_every_container_of_a_pod_holds_gpus_by_the_schedulers_rule(self) -> None:
        def one(gpus: int, **more: str) -> Json:
            return {"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}, **more}

        pod = {"initContainers": [one(7), one(1, restartPolicy="Always"), one(5)], "containers": [one(2), one(1)]}
        assert counted(dgd(worker(podTemplate={"spec": pod}))) == 7
        pod["containers"].append(one(4))
        assert counted(dgd(worker(podTemplate={"spec": pod}))) == 8

    @pytest.mark.parametrize(
        ("multinode", "gpus"),
        [(None, 2), ({}, 4), ({"nodeCount": None}, 4), ({"nodeCount": 3}, 6), ({"nodeCount": 0}, None),
         ({"nodeCount": -1}, None), ({"nodeCount": "2"}, None)],
    )  # fmt: skip
    def test_every_node_counts(self, multinode: Json | None, gpus: int | None) -> None:
        assert counted(dgd(worker(multinode=multinode))) == gpus

    @pytest.mark.parametrize(
        "more",
        [
            {"roles": [{"name": "leader"}]},
            {"experimental": {"failover": {}, "gpuMemoryService": {"mode": "x"}}},
            {"podTemplate": {"spec": {"resourceClaims": [{"name": "gpu"}]}}},
            {"podTemplate": ...},
        ],
    )
    def test_what_only_the_operator_knows_is_unknown_until_it_says(self, more: Json) -> None:
        assert counted(dgd(worker(**more))) is None
        assert counted(dgd(worker(**more), status=told(gpusPerReplica=8, gpusPerEngine=8))) == 8

    def test_a_helper_that_says_nothing_of_its_pods_asks_for_none(self) -> None:
        assert read(dgd(worker("planner", podTemplate=...))).fixed_gpus == 0

    @pytest.mark.parametrize(
        ("service", "gpus"),
        [
            ({"resources": {"limits": {"gpu": "2"}}}, 2),
            ({"resources": {"requests": {"gpu": "2"}}, "multinode": {"nodeCount": 2}}, 4),
            ({"resources": {"limits": {"cpu": "8", "custom": {"amd.com/gpu": "3"}}}}, 3),
            ({"extraPodSpec": {"mainContainer": {"resources": {"limits": {"nvidia.com/gpu": "2"}}}}}, 2),
            ({"resources": {"limits": {"gpu": "2"}}, "extraPodSpec": {"containers": [
                {"resources": {"limits": {"nvidia.com/gpu": "1"}}}]}}, 3),
            ({"resources": {"limits": {"gpu": "two"}}}, None),
            ({"extraPodSpec": {"mainContainer": {}}}, 0),
            ({}, None),
        ],
    )  # fmt: skip
    def test_services_of_v1alpha1_ask_in_their_own_places(self, service: Json, gpus: int | None) -> None:
        assert counted(alpha(w={"componentType": "worker", **service})) == gpus


class TestShapes:
    @pytest.mark.parametrize(
        ("per_replica", "per_engine", "gpus"),
        [(4, 4, 4), (0, 0, 0), (0, 1, 2), (4, None, 2), (None, 4, 2), (-4, 4, 2), ("4", "4", 2), (10**7, 1, 2)],
    )
    def test_a_status_that_makes_sense_wins(self, per_replica: object, per_engine: object, gpus: int) -> None:
        status = told(gpusPerReplica=per_replica, gpusPerEngine=per_engine)
        assert counted(dgd(worker(), status=status)) == gpus

    def test_an_old_status_keeps_the_accepted_shape_while_the_spec_asks_for_the_same(self) -> None:
        first = join(dgd(worker(), status=told(gpusPerReplica=5, gpusPerEngine=5)))
        later = dgd(worker(replicas=9), generation=2, status=told(gpusPerReplica=5, gpusPerEngine=5))
        (pool,) = join(later, shapes=dict(first.shapes)).deployment.pools
        assert pool.charged_gpus == 45

    @pytest.mark.parametrize(("asked", "gpus"), [("1", 2), ("4", 4), ("1.5", None)])
    def test_a_spec_that_asks_anew_counts_with_the_larger_until_it_is_observed(
        self, asked: str, gpus: int | None
    ) -> None:
        shapes = dict(join(dgd(worker(), status=told())).shapes)
        changed = join(dgd(worker(gpus=asked), generation=2, status=told()), shapes=shapes)
        assert changed.deployment.pools[0].gpus_per_replica == gpus
        again = dgd(worker(gpus=asked), generation=3, status=told(observed=2))
        assert join(again, shapes=dict(changed.shapes)).deployment.pools[0].gpus_per_replica == gpus
        observed = join(dgd(worker(gpus="1"), generation=4, status=told(observed=4)), shapes=dict(changed.shapes))
        assert observed.deployment.pools[0].gpus_per_replica == 1

    def test_an_old_status_that_was_never_accepted_counts_where_it_is_larger(self) -> None:
        assert counted(dgd(worker(), generation=2, status=told(gpusPerReplica=8, gpusPerEngine=8))) == 8
        assert counted(dgd(worker(gpus="1e3"), generation=2, status=told(gpusPerReplica=8, gpusPerEngine=8))) is None

    def test_an_old_status_frees_nothing_that_was_asked_for_since_it_was_current(self) -> None:
        def present(replicas: int, generation: int, shapes: dict[str, Shape]) -> tuple[int, dict[str, Shape]]:
            obj = dgd(worker(replicas=replicas), generation=generation, status=told(observed=1, replicas=2))
            result = join(obj, shapes=shapes)
            (pool,) = result.deployment.pools
            return pool.present, dict(result.shapes)

        at_first, shapes = present(2, 1, {})
        raised, shapes = present(4, 2, shapes)
        lowered, shapes = present(1, 3, shapes)
        assert (at_first, raised, lowered) == (2, 2, 4)

    def test_a_current_status_says_what_is_present(self) -> None:
        before = {"w": Shape(2, 2, most=9)}
        result = join(dgd(worker(replicas=1), status=told(observed=1, replicas=3)), shapes=before)
        (pool,) = result.deployment.pools
        assert (pool.present, result.shapes["w"].most) == (3, 1)

    def test_an_unknown_shape_is_a_problem_in_words(self) -> None:
        problems = read(dgd(worker(gpus="1k"))).problems
        assert problems == ("component w: the GPUs per replica are not known",)


class TestAdapters:
    @pytest.mark.parametrize("field", ["componentName", "serviceName"])
    def test_an_adapter_is_the_authority_for_its_component_whatever_its_name(self, field: str) -> None:
        adapter = dgdsa("w" if field == "componentName" else None, name="anything", serviceName="w")
        (pool,) = read(dgd(worker()), adapter).pools
        assert (pool.replicas, pool.relayed, pool.charged_gpus) == (4, 3, 8)
        assert pool.authority == Authority("adapter/anything", "u-anything")

    def test_without_an_adapter_the_deployment_is_the_authority(self) -> None:
        (pool,) = read(dgd(worker())).pools
        assert (pool.relayed, pool.authority) == (None, Authority("deployment/a", "u1"))

    @pytest.mark.parametrize("kind", ["prefill", "decode"])
    def test_a_component_whose_adapter_is_still_to_come_is_charged_and_left_to_nobody(self, kind: str) -> None:
        deployment = read(dgd(worker(kind, scalingAdapter={}), worker("worker", name="x"), status=told(replicas=5)))
        assert [pool.component for pool in deployment.pools] == ["x"]
        assert (deployment.fixed_gpus, deployment.totals.charged) == (10, 16)
        assert deployment.problems == ("component w waits for its scaling adapter; it is not scaled",)
        assert deployment.unscaled == ((Role(kind), "component w waits for its scaling adapter"),)

    def test_with_its_adapter_such_a_component_is_a_pool(self) -> None:
        deployment = read(dgd(worker(scalingAdapter={})), dgdsa())
        assert [pool.authority.name for pool in deployment.pools] == ["adapter/a-w"]
        assert not deployment.problems

    def test_where_nobody_serves_adapters_nobody_waits_for_one(self) -> None:
        deployment = join(dgd(worker(scalingAdapter={})), served=False).deployment
        assert [pool.authority.name for pool in deployment.pools] == ["deployment/a"]
        assert not deployment.problems

    def test_a_helper_waits_for_no_adapter_of_its_own(self) -> None:
        assert not read(dgd(worker(None, scalingAdapter={}))).problems

    @pytest.mark.parametrize(
        ("adapter", "waits"),
        [({"enabled": True}, True), ({"enabled": False}, False), ({}, False), (None, False), ("x", False)],
    )
    def test_services_of_v1alpha1_say_whether_they_want_one(self, adapter: object, *, waits: bool) -> None:
        service = {"componentType": "worker", "resources": {"limits": {"gpu": "2"}}, "scalingAdapter": adapter}
        deployment = read(alpha(w=service))
        assert (not deployment.pools) is waits
        assert deployment.totals.charged == 2

    def test_two_adapters_leave_a_component_to_nobody_and_count_the_most(self) -> None:
        deployment = read(dgd(worker()), dgdsa(), dgdsa(name="b", replicas=7))
        assert (deployment.pools, deployment.fixed_gpus) == ((), 14)
        assert deployment.problems == ("component w has 2 adapters: a-w, b; it is not scaled",)

    def test_an_adapter_of_nothing_is_a_problem(self) -> None:
        adapters = [dgdsa("x"), dgdsa(name="g", componentName=None, componentGroupName="group")]
        assert read(dgd(worker()), *adapters).problems == (
            "adapter a-w is for a component that does not exist: 'x'",
            "adapter g names no component",
        )

    def test_an_adapter_whose_replicas_are_no_count_makes_the_shape_unknown(self) -> None:
        deployment = read(dgd(worker()), dgdsa(replicas=-2))
        assert not deployment.shape_known
        assert deployment.problems == ("adapter a-w: its replicas are -2",)


def fenced(obj: Json, value: str | None) -> Json:
    """Give *obj* with *value* where its fence stands, beside an annotation of somebody else's."""
    annotations = {"other": "x"} | ({} if value is None else {FENCE: value})
    return obj | {"metadata": obj["metadata"] | {"annotations": annotations}}


class TestFences:
    def test_all_pools_of_a_deployment_show_its_fence_and_one_with_an_adapter_shows_that_ones(self) -> None:
        obj = fenced(dgd(worker(), worker("decode", name="d")), "gp/main:f-1")
        assert [pool.fence for pool in read(obj).pools] == ["f-1", "f-1"]
        assert [pool.fence for pool in read(obj, fenced(dgdsa(), "gp/main:f-2")).pools] == ["f-2", "f-1"]
        assert [pool.fence for pool in read(obj, dgdsa()).pools] == ["", "f-1"]

    @pytest.mark.parametrize("value", [None, ""])
    def test_before_the_first_fence_there_is_none(self, value: str | None) -> None:
        (pool,) = read(fenced(dgd(worker()), value)).pools
        assert pool.fence == ""
        assert read(dgd(worker())).pools[0].fence == ""

    def test_what_another_ledger_claims_is_a_problem_in_words(self) -> None:
        deployment = read(fenced(dgd(worker(), worker("decode", name="d")), "gp/other:f"))
        assert [pool.fence for pool in deployment.pools] == [None, None]
        assert deployment.problems == ("deployment/a belongs to another ledger, gp/other; it is not scaled",)
        assert deployment.totals.charged == 12

    @pytest.mark.parametrize(
        "value",
        ["f", "gp/main", "gp/main:", "gp/main:a:b", "gp/main:a b", "gp/main:\n", ":f", "x" * 2**20, "gp/main:\x00é"],
    )
    def test_a_fence_that_is_not_understood_is_nobodys_and_a_problem_in_one_short_line(self, value: str) -> None:
        deployment = read(fenced(dgd(worker()), value))
        assert [pool.fence for pool in deployment.pools] == [None]
        (problem,) = deployment.problems
        assert problem.startswith("deployment/a has a fence that is not understood: '")
        assert len(problem) < 200
        assert problem.isprintable()

    def test_a_claim_on_what_nobody_writes_matters_to_nobody(self) -> None:
        deployment = read(fenced(dgd(worker()), "gp/other:f"), dgdsa())
        assert ([pool.fence for pool in deployment.pools], deployment.problems) == ([""], ())

    @given(st.text(max_size=200))
    def test_whatever_stands_there_is_a_fence_of_ours_or_a_problem(self, value: str) -> None:
        deployment = read(fenced(dgd(worker()), value))
        (pool,) = deployment.pools
        assert (pool.fence is None) == bool(deployment.problems)
        if pool.fence:
            assert value == claim_of(DOMAIN, pool.fence)


class TestWhatIsNotUnderstood:
    @pytest.mark.parametrize(
        ("obj", "problem"),
        [
            (dgd() | {"spec": {}}, "it has neither spec.components nor spec.services"),
            (dgd() | {"spec": None}, "it has neither spec.components nor spec.services"),
            (dgd(worker(), services={}), "it has both spec.components and spec.services"),
            (dgd(worker(), worker()), "2 components are named 'w'"),
            (dgd(worker(name=...)), "a component has no name"),
            (
                dgd(worker(), experimental={"componentGroups": [{"name": "g"}]}),
                "it has component groups, whose replicas multiply those of their members",
            ),
            (dgd(worker(podTemplate={"spec": {"containers": "x"}})), "it is not GraphObject: Expected `array | null`"),
            (dgd() | {"spec": {"components": {"w": {}}}}, "it is not GraphObject: Expected `array | null`"),
        ],
    )
    def test_a_deployment_that_is_not_understood_is_not_counted_as_nothing(self, obj: Json, problem: str) -> None:
        deployment = read(obj)
        assert (deployment.pools, deployment.fixed_gpus) == ((), None)
        assert deployment.problems[0].startswith(problem)

    def test_a_deployment_of_no_components_uses_no_gpus(self) -> None:
        assert read(dgd()) == Deployment(read(dgd()).id)

    def test_a_deployment_that_is_being_deleted_counts_until_it_is_gone(self) -> None:
        obj = dgd(worker())
        obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert read(obj).totals.charged == 6
        assert read(obj).problems == ("it is being deleted; it counts until it is gone",)

    @pytest.mark.parametrize("bad", [b"", b"{", b"[]", b"{}", b"null", b'"\xff"', b"[" * 100_000, b'{"metadata":{}}'])
    def test_bytes_that_name_no_object_are_refused(self, bad: bytes) -> None:
        for reader in (read_graph, read_adapter):
            with pytest.raises(ValueError, match="not "):
                reader(bad)

    def test_an_object_of_another_kind_is_refused(self) -> None:
        with pytest.raises(ValueError, match="Invalid enum value 'ConfigMap'"):
            read_graph(raw(dgd() | {"kind": "ConfigMap"}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Give the path of everything inside *value*."""
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    return [place for key, inner in items for place in [(*path, key), *places(inner, (*path, key))]]


FULL = dgd(
    worker(multinode={"nodeCount": 2}, scalingAdapter={}),
    worker("decode", name="d"),
    worker(None, name="router", gpus=None),
    status=told(replicas=3, updatedReplicas=3, availableReplicas=2, gpusPerReplica=4, gpusPerEngine=4),
)


@given(st.sampled_from(places(FULL["spec"], ("spec",)) + places(FULL["status"], ("status",))), JSON)
def test_whatever_stands_anywhere_is_read_without_an_exception(place: tuple[str | int, ...], value: object) -> None:
    obj = json.loads(json.dumps(FULL))
    inner = obj
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    deployment = read(obj, dgdsa())
    assert deployment.id.name == "a"
    assert deployment.shape_known or deployment.problems


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["prefill", "decode", "worker", "frontend", None]),
            st.integers(0, 9),  # replicas
            st.integers(0, 8),  # GPUs
            st.integers(0, 9),  # present
            st.lists(st.integers(0, 9), max_size=2),  # its adapters' replicas
        ),
        max_size=6,
    )
)
def test_no_mixture_of_roles_and_adapters_makes_the_charge_smaller(
    parts: list[tuple[str | None, int, int, int, list[int]]],
) -> None:
    components = [
        worker(kind, name=f"c{n}", gpus=str(gpus), replicas=count) for n, (kind, count, gpus, _, _) in enumerate(parts)
    ]
    statuses = {f"c{n}": {"replicas": present} for n, (_, _, _, present, _) in enumerate(parts)}
    adapters = [
        dgdsa(f"c{n}", name=f"a{n}-{m}", replicas=count)
        for n, (*_, counts) in enumerate(parts)
        for m, count in enumerate(counts)
    ]
    deployment = read(dgd(*components, status={"components": statuses}), *adapters)
    charge = sum(gpus * max(count, present, *counts, 0) for _, count, gpus, present, counts in parts)
    assert deployment.totals.charged == charge
