"""The Kubernetes manifests: valid, of one piece with the compose files, and open to nobody."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.secrets import SERVER, make_keys, make_secrets
from deploy.supervision import ROOT, STOP_WAIT_S
from shared.config import PREFIX, Settings
from tests.composing import GPU_NODE, HEAD, environment_here, said_by, services, started

FOLDER = ROOT / "deploy" / "kubernetes"
KEDA = json.loads((Path(__file__).parent / "keda_scaledobject.json").read_text())
APART = ("burst.yaml", "fetch.yaml")  # not part of the kustomization
OLDEST, NEWEST = "1.30", "1.37"

Manifest = dict[str, Any]


def manifests() -> Iterator[tuple[str, Manifest]]:
    for file in sorted(FOLDER.glob("*.yaml")):
        if file.name != "kustomization.yaml":
            yield from ((file.name, each) for each in yaml.safe_load_all(file.read_text()))


ALL = list(manifests())
NAMES = [f"{manifest['kind']}-{manifest['metadata']['name']}" for _, manifest in ALL]
PODS: dict[str, Manifest] = {
    manifest["metadata"]["name"]: manifest["spec"]["template"]
    for _, manifest in ALL
    if "template" in manifest.get("spec", {})
}
OURS = {name: pod for name, pod in PODS.items() if name != "redis"}
NODES = {name: pod for name, pod in PODS.items() if name.startswith("gpu-")}


def container(pod: Manifest) -> Manifest:
    (found,) = pod["spec"]["containers"]
    return dict(found)


def environment(pod: Manifest) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container(pod).get("env", [])}


def of_kind(kind: str) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"]: manifest for _, manifest in ALL if manifest["kind"] == kind}


@pytest.mark.parametrize("manifest", [manifest for _, manifest in ALL], ids=NAMES)
def test_every_manifest_is_valid(manifest: Manifest) -> None:
    if manifest["apiVersion"] == "keda.sh/v1alpha1":
        jsonschema.validate(manifest["spec"], KEDA)
        return
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_refuse_what_is_misspelt() -> None:
    manifest = of_kind("DaemonSet")["gpu-node"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest | {"spec": {**manifest["spec"], "replicass": 1}}, NEWEST, strict=True)
    scaled = of_kind("ScaledObject")["gpu-burst"]["spec"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**scaled, "maxReplicas": 1}, KEDA)


def test_all_are_put_together_but_what_needs_more_than_kubernetes() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert {*listed["resources"], *APART} == {file for file, _ in ALL}
    # A job's template cannot be changed, so `apply -k` with the next image would end there.
    assert not {manifest["kind"] for file, manifest in ALL if file in listed["resources"]} & {"Job", "ScaledObject"}
    used = {container(pod)["image"] for pod in OURS.values()}
    assert used == {each["name"] for each in listed["images"]}
    assert used == {"cascade-head", "cascade-node"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_builds_them_with_the_images_named() -> None:
    built = said_by(["kubectl", "kustomize", str(FOLDER)])
    assert built.returncode == 0, built.stderr
    made = list(yaml.safe_load_all(built.stdout))
    assert len(made) == len([file for file, _ in ALL if file not in APART])
    assert all(each["metadata"].get("namespace") == "cascade" for each in made if each["kind"] != "Namespace")
    images = {container(each["spec"]["template"])["image"] for each in made if "template" in each.get("spec", {})}
    assert not images & {"cascade-head", "cascade-node"}


def test_what_runs_is_what_the_compose_files_run() -> None:
    composed = services(HEAD) | {"gpu-node": services(GPU_NODE)["node"]}
    for name, pod in PODS.items():
        if name == "fetch":
            continue
        service = composed["gpu-node" if name in NODES else name]
        words = service.get("entrypoint") or started(service)
        assert container(pod)["command"] == words, name
        if name == "redis":
            continue
        told = environment(pod)
        theirs = environment_here(service, {"@10.0.0.1:": "@redis:"})
        assert told.keys() <= theirs.keys(), name
        urls = {key for key in theirs if key.startswith("REDIS_URL")}
        assert all(told[key] == theirs[key] for key in (*urls, "CASCADE_BEATS", "CASCADE_DEPLOYMENT"))
        grace = f"{pod['spec']['terminationGracePeriodSeconds']}s"
        assert grace == service["stop_grace_period"]


def test_every_variable_is_a_setting() -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    for pod in OURS.values():
        assert {name for name in environment(pod) if name.startswith(PREFIX)} <= known


def test_a_node_is_named_by_its_machine_and_has_a_gpu_a_slot() -> None:
    for name, pod in NODES.items():
        (node,) = (each for each in container(pod)["env"] if each["name"] == "CASCADE_NODE")
        expected = "spec.nodeName" if name == "gpu-node" else "metadata.name"
        assert node["valueFrom"]["fieldRef"]["fieldPath"] == expected
        assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == environment(pod)["CASCADE_SLOTS"]
        assert pod["spec"]["terminationGracePeriodSeconds"] > 2 * STOP_WAIT_S
        assert pod["spec"]["nodeSelector"] == {"cascade/node": name.removeprefix("gpu-").replace("node", "gpu")}


def test_a_node_is_killed_for_a_loop_that_stands_still_and_not_for_a_head_that_is_away() -> None:
    for name, pod in OURS.items():
        if name in ("gateway", "fetch"):
            continue
        service = "agent" if name in NODES else name
        probes = container(pod)
        assert probes["livenessProbe"]["exec"]["command"] == ["python", "-m", "services.health", "live", service]
        ready = ["ready"] if name in NODES else ["healthy", service]
        assert probes["readinessProbe"]["exec"]["command"] == ["python", "-m", "services.health", *ready]
    gateway = container(PODS["gateway"])
    assert gateway["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}


def test_redis_has_room_and_is_not_killed_while_it_loads() -> None:
    redis = container(PODS["redis"])
    limit = redis["command"][redis["command"].index("--maxmemory") + 1]
    assert 1.5 * int(limit.removesuffix("gb")) <= int(redis["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert redis["livenessProbe"]["exec"]["command"] == ["redis-cli", "ping"], "a refusal is an answer"
    theirs = services(HEAD)["redis"]["healthcheck"]["test"][1]
    assert redis["readinessProbe"]["exec"]["command"] == ["sh", "-c", theirs]
    assert redis["image"] == services(HEAD)["redis"]["image"]


def test_no_manifest_holds_a_secret_and_the_readme_makes_all_that_are_mounted(tmp_path: Path) -> None:
    assert not of_kind("Secret")
    make_secrets(tmp_path / "secrets", "cascade", SERVER)
    make_keys(tmp_path / "keys", "admin")
    made: dict[str, set[str]] = {}
    for name, files in re.findall(
        r"create secret generic (\S+)((?: --from-file=\S+)+)", (FOLDER / "README.md").read_text()
    ):
        paths = [tmp_path / each for each in re.findall(r"--from-file=(\S+)", files)]
        assert all(path.is_file() for path in paths)
        made[name] = {path.name for path in paths}
    mounted = {
        volume["secret"]["secretName"]: pod
        for pod in PODS.values()
        for volume in pod["spec"]["volumes"]
        if "secret" in volume
    }
    assert mounted.keys() == made.keys()
    for name, pod in mounted.items():
        text = json.dumps(container(pod))
        assert all(f"/{key}" in text for key in made[name]), f"{name}: nobody asks for all of it"


@pytest.mark.parametrize("name", PODS)
def test_nothing_is_root_or_keeps_a_right(name: str) -> None:
    pod, user = PODS[name]["spec"], 999 if name == "redis" else 10001
    context, own = pod["securityContext"], container(PODS[name])["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["fsGroup"]) == (True, user, user)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (own["allowPrivilegeEscalation"], own["capabilities"]) == (False, {"drop": ["ALL"]})
    assert pod["automountServiceAccountToken"] is False, "it would hide the passwords mounted at /run/secrets"
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


def test_volumes_claims_services_and_selectors_meet() -> None:
    claims = of_kind("PersistentVolumeClaim")
    for name, pod in PODS.items():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        templates = of_kind("StatefulSet").get(name, {}).get("spec", {}).get("volumeClaimTemplates", [])
        held = volumes.keys() | {each["metadata"]["name"] for each in templates}
        assert {mount["name"] for mount in container(pod)["volumeMounts"]} == held
        assert all(
            v["persistentVolumeClaim"]["claimName"] in claims for v in volumes.values() if "persistentVolumeClaim" in v
        )
        assert pod["metadata"]["labels"]["app"] == name
    for _, manifest in ALL:
        if "template" in manifest.get("spec", {}) and manifest["kind"] != "Job":
            labels = manifest["spec"]["template"]["metadata"]["labels"]
            assert manifest["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for name, service in of_kind("Service").items():
        assert service["spec"]["selector"] == {"app": name}
        assert {port["name"] for port in service["spec"]["ports"]} == {
            port["name"] for port in container(PODS[name])["ports"]
        }


def test_only_our_pods_reach_redis_and_only_the_gateway_is_reached_from_outside() -> None:
    policies = {name: policy["spec"] for name, policy in of_kind("NetworkPolicy").items()}
    assert policies["nothing-by-default"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    open_to_all = {
        policy["podSelector"]["matchLabels"]["app"]
        for policy in policies.values()
        for rule in policy.get("ingress", [])
        if "from" not in rule
    }
    assert open_to_all == {"gateway"}
    (rule,) = policies["our-pods-reach-redis"]["ingress"]
    assert rule == {"from": [{"podSelector": {"matchLabels": {"cascade/redis": "client"}}}], "ports": [{"port": 6379}]}
    clients = {name for name, pod in PODS.items() if pod["metadata"]["labels"].get("cascade/redis") == "client"}
    assert clients == OURS.keys() - {"fetch"}


def test_names_are_resolved_by_the_cluster_and_by_a_cache_on_the_machine() -> None:
    (redis, names) = of_kind("NetworkPolicy")["clients-reach-redis-and-names-only"]["spec"]["egress"]
    pods, machine = names["to"]
    assert {port["port"] for port in names["ports"]} == {53} and {port["port"] for port in redis["ports"]} == {6379}
    assert machine == {"ipBlock": {"cidr": "169.254.20.10/32"}}  # NodeLocal DNSCache, as its manual has it
    (labels,) = pods["podSelector"]["matchExpressions"]
    assert labels == {"key": "k8s-app", "operator": "In", "values": ["kube-dns", "node-local-dns"]}


def test_without_figures_keda_leaves_the_burst_as_it_is() -> None:
    scaled = of_kind("ScaledObject")["gpu-burst"]["spec"]
    assert "fallback" not in scaled, "it scales to its number of replicas, and never keeps those that are there"
    assert all(trigger["metadata"]["ignoreNullValues"] == "false" for trigger in scaled["triggers"])


def test_keda_scales_the_burst_on_a_gauge_that_is_told() -> None:
    scaled = of_kind("ScaledObject")["gpu-burst"]["spec"]
    target = scaled["scaleTargetRef"]
    assert target["name"] in of_kind(target["kind"])
    assert "replicas" not in of_kind("Deployment")["gpu-burst"]["spec"], "it would be set back at every apply"
    told = (ROOT / "shared" / "metrics.py").read_text()
    for trigger in scaled["triggers"]:
        names = re.findall(r"cascade_\w+", trigger["metadata"]["query"])
        assert names == ["cascade_waiting_prompts"]
        assert all(f'"{name}"' in told for name in names)
