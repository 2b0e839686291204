"""A deployment on a real Redis Cluster: one hash slot, one node, whichever node the address names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.runner import environment_of
from deploy.supervision import ROOT
from shared.broker import Broker
from shared.cluster import HASH_SLOTS, hash_slot
from shared.config import Settings
from shared.connection import Connection, Unreachable
from shared.embedded import EmbeddedRedis
from tests.conftest import BINARIES, name_of
from tests.helpers import a_plan, assert_conserved, ends, hire, publish, put_plan
from tests.processes import service, until, worker
from tests.servers import Cluster, cluster

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=BINARIES, ids=name_of)
def nodes(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with cluster(request.param) as made:
        yield made


def through(node: EmbeddedRedis, deployment: str, **further: Any) -> Settings:
    return Settings(redis_url=node.url, deployment=deployment, node="test", cascade="sdturbo", **further)


def elsewhere(nodes: Cluster, deployment: str) -> EmbeddedRedis:
    """A node that does not hold the deployment."""
    owner = nodes.owner(hash_slot("{" + deployment + "}"))
    return next(node for node in nodes.nodes if node is not owner)


def keys_at(nodes: Cluster, node: EmbeddedRedis, deployment: str) -> list[bytes]:
    return [key for key in nodes.say(node, "KEYS", "*") if key.startswith(f"{{{deployment}}}:".encode())]


def test_a_whole_run_lies_on_one_node_though_the_address_names_another(nodes: Cluster) -> None:
    settings = through(elsewhere(nodes, "run"), "run", backend="sleeping", slots=2)
    broker = Broker(settings)
    broker.check()
    with (
        service(settings, "keeper"),
        worker(settings, "light", slot=0),
        worker(settings, "heavy", slot=1),
    ):
        slots: Any = {"test:0": "light", "test:1": "heavy"}
        put_plan(broker, a_plan(threshold=0.9, assignment=slots))
        publish(broker, *(f"p{number}" for number in range(8)), allowance_s=60.0)
        until(lambda: len(ends(broker)) == 8, "every prompt has ended")
    assert {end for end, _ in ends(broker).values()} <= {"light", "heavy"}
    assert "heavy" in {end for end, _ in ends(broker).values()}, "no prompt went over both stages"
    assert_conserved(broker)
    owner = nodes.owner(hash_slot(broker.keys.due))
    found = {node.port: keys_at(nodes, node, "run") for node in nodes.nodes}
    assert {port for port, keys in found.items() if keys} == {owner.port}
    told = {nodes.say(owner, "CLUSTER", "KEYSLOT", key) for key in found[owner.port]}
    assert told == {hash_slot(broker.keys.due)}, "a key of the deployment lies in another slot"


def test_deployments_spread_over_the_nodes(nodes: Cluster) -> None:
    held: dict[int, int] = {}
    for number in range(30):
        broker = Broker(through(nodes.nodes[0], f"d{number}"))
        publish(broker)
        assert nodes.owner(hash_slot(broker.keys.due)).port == port_of(broker)
        held[port_of(broker)] = held.get(port_of(broker), 0) + 1
        broker.close()
    assert len(held) == len(nodes.nodes), f"a node holds none of 30 deployments: {held}"


def test_a_slot_that_moves_takes_its_deployment_along(nodes: Cluster) -> None:
    broker = Broker(through(nodes.nodes[0], "moving"))
    broker.check()
    light = hire(broker)
    publish(broker, "first", "second")
    entry = light.one()
    slot, old = hash_slot(broker.keys.due), port_of(broker)
    target = next(node for node in nodes.nodes if node.port != old)
    nodes.move(slot, target)
    with pytest.raises(Unreachable, match="MOVED"):  # what every loop of a service waits over
        light.beat(entry)
    assert light.beat(entry).entries == {entry.place}
    assert light.end(entry) == 1
    assert light.end(light.one()) == 1
    assert ends(broker) == {"first": ("light", "confident"), "second": ("light", "confident")}
    assert port_of(broker) == target.port
    assert keys_at(nodes, target, "moving")


def test_a_node_that_ends_after_it_gave_the_slot_away_is_not_sought_for_ever() -> None:
    with cluster(BINARIES[0]) as nodes:
        slot = hash_slot("{left}:due")
        old = nodes.owner(slot)
        told_of, new = (node for node in nodes.nodes if node is not old)
        broker = Broker(through(told_of, "left"))
        publish(broker)
        assert port_of(broker) == old.port
        nodes.move(slot, new)
        old.stop()
        assert publish(broker, "after").status == "published"
        assert port_of(broker) == new.port


def test_a_person_is_told_where_a_deployment_lies(nodes: Cluster) -> None:
    settings = through(elsewhere(nodes, "asked"), "asked")
    command = [sys.executable, "-m", "services.ctl", "where"]
    environment = {**os.environ, **environment_of(settings)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    slot = hash_slot("{asked}:due")
    assert done.stdout == f"asked: hash slot {slot}, on 127.0.0.1:{nodes.owner(slot).port}, a node of a cluster\n"


def port_of(broker: Broker) -> int:
    """Where the broker's connections lead."""
    facts: Any = broker.client.info("server")
    return int(facts["tcp_port"])


@given(st.text(min_size=1, max_size=20))
def test_the_slot_is_the_servers(nodes: Cluster, text: str) -> None:
    for key in (text, "{" + text + "}:due", text + "{}x", "a{" + text):
        assert nodes.say(nodes.nodes[0], "CLUSTER", "KEYSLOT", key) == hash_slot(key)
        assert 0 <= hash_slot(key) < HASH_SLOTS


def test_a_server_alone_is_no_cluster(server: EmbeddedRedis) -> None:
    connection = Connection(Settings(redis_url=server.url))
    assert connection.now() > 0
    assert connection.node() == connection.address
