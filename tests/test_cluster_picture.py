"""What a newcomer does: the head with a node of two CPU slots, a GPU node's file on another host, and a picture."""

from __future__ import annotations

import base64
import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.cluster.cluster import NODE_FILE, Cluster, Node
from deploy.cluster.network import obstacle
from shared.errors import ServerUnfit

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "nothing is in the way")]

PROMPT = "big blue circle left of big orange triangle on black"
SLOW_S = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`docker compose --profile node up -d` on the head, and a GPU node on another host: the page's way."""
    with tempfile.TemporaryDirectory(prefix="cascade-cluster-") as folder:
        far = Node("far", 1, gpu="")
        profiles = ["node"]
        try:
            with Cluster(
                Path(folder), [far], node_file=NODE_FILE, cascade="tiny", backend="diffusers", profiles=profiles
            ) as running:
                running.join("far")
                running.until(lambda: running.able("cpu-1") == 2, "the head's own node can draw")
                yield running
        except ServerUnfit as wrong:
            pytest.skip(str(wrong))


def asked(cluster: Cluster, key: str, **more: Any) -> dict[str, Any]:
    """What the door over HTTP answers for a prompt, from this machine."""
    body = json.dumps({"prompt": PROMPT, "deadline_s": SLOW_S, **more}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    address = f"http://{cluster.network.hosts['head'].address}:8000/v1/images/generations"
    request = urllib.request.Request(address, body, headers)
    with urllib.request.urlopen(request, timeout=2 * SLOW_S) as answer:
        return dict(json.loads(answer.read()))


def test_a_picture_comes_for_who_has_a_key(cluster: Cluster) -> None:
    picture = base64.b64decode(asked(cluster, cluster.key)["data"][0]["b64_json"])
    assert picture[:4] == b"RIFF", "webp"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        asked(cluster, "sk-wrong")


def test_both_nodes_are_in_the_plan_and_the_people_s_command_shows_them(cluster: Cluster) -> None:
    cluster.until(lambda: (cluster.planned("far"), cluster.planned("cpu-1")) == (1, 2), "both are planned for", SLOW_S)
    said = cluster.ctl("status")
    assert "far" in said
    assert "cpu-1" in said


def test_every_container_is_healthy_and_none_was_started_twice(cluster: Cluster) -> None:
    for project in (cluster.head, *cluster.nodes.values()):
        project.wait_healthy(patience_s=SLOW_S)
        assert [container.starts for container in project.containers.values()] == [1] * len(project.containers)
    code, said = cluster.agent("far").run(["python", "-m", "services.health", "ready"])
    assert (code, said) == (0, "")
