"""A head and two nodes with addresses of their own, run from the compose files: a short cut of `make cluster`.

One cluster serves all tests of this file but the first few, for it takes ten seconds to start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cluster.cluster import MADE_UP, PROFILED, Cluster, Node
from deploy.cluster.containers import Container
from deploy.cluster.drill import Drill
from deploy.cluster.judging import judged
from deploy.cluster.network import Network, obstacle
from deploy.cluster.project import Project
from deploy.cluster.scenarios import Scenario
from deploy.supervision import ROOT
from shared.errors import CascadeError
from tests.processes import until

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "nothing is in the way")]

HEAD = ("redis", "control", "keeper", "gateway")
SLOW_S = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head, and gpu-1 with two slots; gpu-2, with one of another type, has not joined."""
    with tempfile.TemporaryDirectory(prefix="cascade-cluster-") as folder:
        try:
            with Cluster(Path(folder), [Node("gpu-1", 2), Node("gpu-2", 1, MADE_UP)]) as running:
                running.join("gpu-1")
                running.head.wait_healthy()
                yield running
        except CascadeError as wrong:
            if "redis-cli" in str(wrong):
                pytest.skip(str(wrong))
            raise


def interfaces() -> str:
    return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout


def answers(network: Network, name: str, address: str) -> bool:
    """Whether an address answers a host of the network."""
    host = network.hosts[name]
    ping = ["nsenter", f"--net={host.namespace}", sys.executable, "-c"]
    asked = f"import socket; socket.create_connection(('{address}', 9), 0.5)"
    said = subprocess.run([*ping, asked], capture_output=True, text=True, check=False).stderr
    return "refused" in said  # nobody listens there, and the host says so


def test_hosts_reach_each_other_until_a_cable_is_pulled() -> None:
    with Network() as network:
        head, far = network.add("head"), network.add("far")
        assert head.address != far.address
        assert answers(network, "far", head.address)
        network.cut("far")
        assert not answers(network, "far", head.address)
        network.heal("far")
        until(lambda: answers(network, "far", head.address), "the cable is in again")


def test_two_networks_do_not_meet() -> None:
    with Network() as first:
        one = first.add("head")
        code = "from deploy.cluster.network import Network\nwith Network() as n: print(n.add('head').address)"
        said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert said.strip().rsplit(".", 1)[0] != one.address.rsplit(".", 1)[0]
        assert answers(first, "head", one.address)


def test_of_a_run_that_was_killed_nothing_is_left() -> None:
    code = "import time\nfrom deploy.cluster.network import Network\nwith Network() as n:\n"
    code += "    print(n.add('head').pid, n.cable, flush=True)\n    time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid, cable = run.stdout.readline().split()
        holder = Path(f"/proc/{pid}/ns")
        assert cable in interfaces()
        run.kill()
    until(
        lambda: not holder.exists() and cable not in interfaces(), "processes, namespaces and cables are gone", SLOW_S
    )


COMPOSE = """\
services:
  stubborn:
    build: {{context: ., dockerfile: deploy/Dockerfile}}
    restart: unless-stopped
    stop_grace_period: 500ms
    command: ["sh", "-c", "trap '' TERM; echo $$NAME > /kept/name; touch /written; while :; do sleep 1; done"]
    environment: {{NAME: "{name}"}}
    volumes: ["kept:/kept"]
    configs: [{{source: a, target: /etc/a}}]
    depends_on: {{first: {{condition: service_healthy}}}}
  first:
    build: {{context: ., dockerfile: deploy/Dockerfile}}
    stop_grace_period: 500ms
    command: ["sh", "-c", "sleep 0.5; touch /tmp/cascade-well; exec sleep 600"]
    healthcheck: {{test: ["CMD", "test", "-e", "/tmp/cascade-well"], interval: 200ms, timeout: 1s, retries: 2}}
configs: {{a: {{file: ./a}}}}
volumes: {{kept: }}
"""


def small_project(network: Network, where: Path) -> Project:
    (where / "deploy").mkdir()
    (where / "deploy" / "Dockerfile").write_text("FROM scratch\nCOPY a /a/b\nWORKDIR /a\nUSER nobody\n")
    (where / "a").write_text("text")
    (where / "compose.yml").write_text(COMPOSE.format(name="${NAME}"))
    return Project(network.add("host"), where / "compose.yml", {"NAME": "it's me"}, where / "run")


def test_a_container_has_a_root_a_user_and_volumes_of_its_own(tmp_path: Path) -> None:
    with Network() as network, small_project(network, tmp_path) as project:
        project.up()
        stubborn = project["stubborn"]
        kept = tmp_path / "run/host/volumes/kept/name"
        until(lambda: kept.exists() and kept.read_text(), "the volume is written to", SLOW_S)
        assert kept.read_text() == "it's me\n"
        assert stubborn.run(["cat", "/a/b", "/etc/a"]) == (0, "texttext")
        assert stubborn.run(["sh", "-c", "id -u; hostname; pwd; echo $$"])[1].split()[:3] == ["10001", "host", "/a"]
        assert stubborn.run(["touch", "/etc/a"])[0] != 0, "a config is read-only"
        assert stubborn.run(["sleep", "9"], timeout_s=0.2)[0] == 124
        assert not Path("/tmp/cascade-well").exists(), "it wrote into its own root"
        assert project["first"].health == "healthy", "else the other would not have been started"


def test_a_container_is_started_again_until_it_is_stopped(tmp_path: Path) -> None:
    with Network() as network, small_project(network, tmp_path) as project:
        project.up()
        stubborn, first = project["stubborn"], project["first"]
        until(lambda: stubborn.processes("sleep 1"), "it runs", SLOW_S)
        before = stubborn.pid
        stubborn.kill()
        until(lambda: stubborn.starts == 2 and stubborn.pid not in (0, before), "it was started again", SLOW_S)
        until(lambda: stubborn.processes("sleep 1"), "it runs", SLOW_S)
        children = stubborn.processes()
        assert stubborn.stop() >= 0.5, "it ignores SIGTERM, and is given its grace period"
        assert (stubborn.exit_code, stubborn.running) == (137, False)
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
        first.kill()
        until(lambda: first.exit_code == 137, "it is dead", SLOW_S)
        assert first.starts == 1, "its policy is no"


def a_short_life(drill: Drill) -> None:
    drill.note("gpu-1 alone", "gpu-1", 2)
    drill.wait(4)
    drill.join("gpu-2")
    drill.wait(6)
    drill.drain("gpu-2")
    drill.wait(2)
    drill.undrain("gpu-2")
    drill.wait(4)
    drill.cut("gpu-2", 6.0)
    drill.wait(6)
    drill.restart_program("gpu-2", "agent")
    for service in ("control", "redis"):
        drill.restart(service)


def test_nodes_come_and_go_and_the_head_restarts_while_prompts_are_served(cluster: Cluster) -> None:
    # The figures are those of `make cluster`; a crowded machine is given more here, but never a lost prompt.
    short = Scenario("a short cut", a_short_life, (), per_s=2.0, violation=0.1)
    drill = Drill(cluster, short.per_s, 1.0, lambda _: None)
    before = cluster.agent("gpu-1").processes()
    with drill.under_load():
        a_short_life(drill)
    verdict = judged(drill, short)
    assert cluster.agent("gpu-1").processes() == before, "agent, workers and supervisor survive the head's restart"
    starts = {name: container.starts for name, container in cluster.head.containers.items()}
    assert starts == {"redis": 2, "control": 2, "keeper": 1, "gateway": 1}, "the head survives the nodes'"
    assert drill.clients.unheard == []
    assert drill.clients.answered > 10
    assert (verdict.lost, verdict.ledger.twice, drill.broken) == ((), (), [])
    assert not [words for words in verdict.broken if "overlap" in words or "older plan" in words]
    assert verdict.ledger.offered > 60
    assert verdict.ledger.violation <= short.violation, verdict.missed
    assert verdict.begun_s is not None
    assert verdict.begun_s < SLOW_S, "the new node drew"
    assert all(phase.follows_s is not None for phase in verdict.phases), "the plan followed every step"


def stopped(processes: list[int], condition: object) -> None:
    """Hold processes with SIGSTOP until something is so."""
    assert processes
    assert callable(condition)
    try:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        until(condition, "the health checks notice", SLOW_S)
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def well(container: Container) -> bool:
    """The health check of its compose file, asked now."""
    assert container.service.health is not None
    return container.check_health(container.service.health)


def test_health_checks_tell_a_loop_that_stands_still(cluster: Cluster) -> None:
    watched = {name: cluster.head[name] for name in ("control", "keeper", "gateway")}
    watched["agent"] = cluster.agent("gpu-1")
    until(lambda: all(map(well, watched.values())), "all are well", SLOW_S)
    held = [pid for name, container in watched.items() for pid in container.processes(f"services.{name}")]
    assert len(held) == len(watched)
    stopped(held, lambda: not any(map(well, watched.values())))
    until(lambda: all(map(well, watched.values())), "all are well again", SLOW_S)


def test_health_checks_tell_a_redis_that_does_not_answer(cluster: Cluster) -> None:
    redis = cluster.head["redis"]
    watched = [redis, cluster.head["control"], cluster.head["keeper"], cluster.agent("gpu-1")]
    until(lambda: all(map(well, watched)), "all are well", SLOW_S)
    stopped([redis.pid], lambda: not any(map(well, watched)))
    until(lambda: all(map(well, watched)), "all are well again", SLOW_S)


def test_a_node_that_is_cut_off_and_dies_leaves_the_plan_and_comes_back(cluster: Cluster) -> None:
    node = cluster.agent("gpu-1")
    cluster.until(lambda: cluster.planned("gpu-1") == 2 and well(node), "the node is planned for and well", SLOW_S)
    until(lambda: all(well(cluster.head[name]) for name in HEAD), "the head is well", SLOW_S)
    started = node.starts
    cluster.network.cut("gpu-1")
    try:
        cluster.until(lambda: cluster.planned("gpu-1") == 0, "its slots left the plan", SLOW_S)
        until(lambda: not well(node), "its health check tells", SLOW_S)
        assert all(well(cluster.head[name]) for name in HEAD), "the head does not mind"
        assert node.run(["python", "-m", "services.health", "live", "agent"])[0] == 0, "no reason to start it anew"
        node.kill()
    finally:
        cluster.network.heal("gpu-1")
    cluster.until(lambda: cluster.planned("gpu-1") == 2 and well(node), "it is back", SLOW_S)
    assert node.starts == started + 1


def test_a_slot_that_is_a_share_of_a_gpu_sees_that_gpu_and_is_planned_as_its_type(cluster: Cluster) -> None:
    (worker,) = cluster.agent("gpu-2").processes("--stage light --slot 0")
    assert b"CUDA_VISIBLE_DEVICES=0\0" in Path(f"/proc/{worker}/environ").read_bytes()
    gpus = {slot.node: slot.gpu for slot in cluster.observer.slots()}
    assert gpus == {"gpu-1": PROFILED, "gpu-2": MADE_UP}


def test_a_node_that_nobody_knows_is_not_drained(cluster: Cluster) -> None:
    with pytest.raises(CascadeError, match="there is no node 'gpu-7'"):
        cluster.ctl("drain", "gpu-7")


def test_no_password_is_seen_by_who_lists_processes(cluster: Cluster) -> None:
    secrets = [path.read_text().strip() for path in (cluster.folder / "secrets").iterdir() if path.suffix != ".acl"]
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert len(secrets) > 5
    assert not [line for line in lines if any(secret.encode() in line for secret in secrets)]
