"""Reading compose files and Dockerfiles, and the accounts of a cluster: what needs no root and starts nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from deploy.cluster.cluster import CPU_FILE, HEAD_FILE, MADE_UP, NODE_FILE, PROFILED
from deploy.cluster.composefile import Mount, filled_in, read_services, seconds, words
from deploy.cluster.drill import Drill, Step
from deploy.cluster.image import image_of, number_of
from deploy.cluster.judging import Phase, first_picture, judged, phases_of, unfollowed
from deploy.cluster.scenarios import SCENARIOS
from deploy.supervision import ROOT
from shared.errors import SettingsError
from shared.messages import Outcome, Visit
from shared.plans import Plan
from tests.helpers import a_plan

KNOWN = {"HEAD_ADDRESS": "10.0.0.1", "NODE_NAME": "gpu-1", "SLOTS": "3", "SECRETS": "/s"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("$$HOME ${A}$A", "$HOME aa"),
        ("${A:-b} ${E:-b} ${N:-b} ${N:-}", "a b b "),
        ("${E-b}|${N-b}", "|b"),
        ("${A:+b}${E:+b}${N:+b}${E+c}", "bc"),
        ("${N:-${A}}-${N:-x}", "a-x"),
        ("${A:?must}", "a"),
    ],
)
def test_variables_are_filled_in_as_compose_does(text: str, meant: str) -> None:
    assert filled_in({"k": [text]}, {"A": "a", "E": ""}) == {"k": [meant]}


def test_a_variable_that_must_be_set_is_asked_for_in_the_files_words() -> None:
    with pytest.raises(SettingsError, match="N: a name that no other has"):
        filled_in("${N:?a name that no other has}", {"N": ""})


@pytest.mark.parametrize(("text", "meant"), [("45s", 45), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200), ("1.5s", 1.5)])
def test_durations_are_read(text: str, meant: float) -> None:
    assert seconds(text) == meant


def test_a_line_is_for_the_shell_and_a_list_is_not() -> None:
    assert words("a b") == ("/bin/sh", "-c", "a b")
    assert words(["a", "b c"]) == ("a", "b c")


def test_the_heads_file_is_read_with_its_secrets_users_and_order() -> None:
    services = read_services(HEAD_FILE, KNOWN)
    assert set(services) == {"redis", "control", "keeper", "gateway"}
    assert services["redis"].user == "999:999"
    assert Mount("bind", "/s/control", "/run/secrets/control", read_only=True) in services["control"].mounts
    assert services["control"].depends_on == {"redis": "service_healthy"}
    assert all(service.restarts and service.health for service in services.values())


def test_a_nodes_file_is_read_with_what_it_passes_on() -> None:
    (node,) = read_services(NODE_FILE, KNOWN).values()
    assert (node.environment["CASCADE_NODE"], node.environment["CASCADE_SLOTS"]) == ("gpu-1", "3")
    assert "@10.0.0.1:6379" in node.environment["REDIS_URL"]
    assert node.grace_s > 15, "supervisor's own"
    assert [mount.target for mount in node.mounts if mount.kind == "tmpfs"] == ["/run/cascade"]
    assert [mount.source for mount in node.mounts if mount.kind == "volume"] == ["models", "catalog"]


def test_a_variable_that_is_only_passed_on_is_set_where_it_is_set_outside() -> None:
    for file in (HEAD_FILE, NODE_FILE, CPU_FILE):
        for each in read_services(file, KNOWN | {"CASCADE_DWELL_S": "7", "CATALOG": "/c"}).values():
            told = {name: value for name, value in each.environment.items() if name.endswith(("DWELL_S", "LEASE_S"))}
            assert told == ({} if each.name == "redis" else {"CASCADE_DWELL_S": "7"})
            assert each.name == "redis" or Mount("bind", "/c", "/catalog", read_only=True) in each.mounts
    extended = read_services(HEAD_FILE, KNOWN | {"CASCADE_DWELL_S": "7"}, ["node"])["node"]
    assert extended.environment["CASCADE_DWELL_S"] == "7"


def test_a_list_of_variables_is_read_as_a_table_of_them(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text("services: {a: {image: redis, environment: [A=1=2, B, C]}}")
    assert read_services(file, {"B": "b"})["a"].environment == {"A": "1=2", "B": "b"}


def test_a_key_that_would_be_passed_over_in_silence_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text("services: {a: {image: redis, cgroup_parent: x}}")
    with pytest.raises(SettingsError, match="a: cgroup_parent is not understood"):
        read_services(file, {})


def test_an_image_holds_what_its_dockerfile_copies_and_nothing_more(tmp_path: Path) -> None:
    image = image_of(ROOT / "deploy" / "head.Dockerfile", "", tmp_path)
    assert (image.workdir, number_of(image.user)) == ("/cascade", 10001)
    assert image.environment["PYTHONUNBUFFERED"] == "1"
    assert (tmp_path / "cascade/services/control.py").is_file()
    assert not (tmp_path / "cascade/services/services").exists()
    assert (tmp_path / "cascade/models/catalog.toml").is_file()
    assert not (tmp_path / "cascade/deploy").exists()


def test_an_image_starts_with_its_entrypoint(tmp_path: Path) -> None:
    image = image_of(ROOT / "deploy" / "node.Dockerfile", "", tmp_path)
    assert image.entrypoint[:3] == ("python", "-m", "deploy.supervision")


def plan(version: int, made: float, *slots: str, share: float = 0.5) -> Plan:
    assignment = dict.fromkeys(slots, "heavy")
    return a_plan(version, made=made, heavy_share=share, heavy_workers=len(slots), assignment=assignment)


def outcome(number: int, published: float, worker: str = "a-0-light-x", end: str = "light") -> Outcome:
    visits = (Visit("light", worker, published + 1.0, published + 2.0, 1, 0.5),)
    return Outcome(f"p{number}", "a cat", end, "", published, published + 5, published + 2, visits)  # type: ignore[arg-type]


STEPS = [
    Step("a alone", 0.0, "a", 1),
    Step("b joins", 20.0, "b", 2),
    Step("b is drained", 40.0, "b"),
    Step("end", 60.0),
]
PLANS = [
    plan(1, -3.0, "a:0", share=0.2),
    plan(2, 20.5, "a:0", "b:0", share=0.4),
    plan(3, 23.0, "a:0", "b:0", "b:1", share=0.5),
    plan(4, 41.0, "a:0", share=0.2),
]


def test_a_plan_has_followed_when_it_uses_all_the_slots_it_should() -> None:
    alone, joined, drained = phases_of(STEPS, PLANS, [])
    assert (alone.follows_s, joined.follows_s, drained.follows_s) == (0.0, 3.0, 1.0)
    assert [phase.heavy_workers for phase in (alone, joined, drained)] == [1, 3, 1]
    assert [phase.planned for phase in (alone, joined, drained)] == [0.2, 0.5, 0.2]
    assert list(unfollowed([alone, joined, drained])) == []


def test_a_plan_that_is_late_never_comes_or_goes_the_wrong_way_is_told() -> None:
    late = [*PLANS[:2], plan(3, 27.0, "a:0", "b:0", "b:1", share=0.1)]
    said = list(unfollowed(list(phases_of(STEPS, late, []))))
    assert "b joins: the plan followed after 7.0 s" in said
    assert "b is drained: the plan followed never" in said
    assert any(words.startswith("b joins: the planned heavy share went from 20% to 10%") for words in said)


def test_answers_that_are_less_heavy_than_planned_are_told() -> None:
    answers = [outcome(n, 26.0 + n / 10) for n in range(100)]
    (joined,) = (phase for phase in phases_of(STEPS, PLANS, answers) if phase.step.what == "b joins")
    assert joined.share == 0.0
    assert [
        words for words in unfollowed([joined, joined]) if "0% of the answers were heavy, 50% were planned" in words
    ]
    heavy = [outcome(n, 26.0 + n / 10, end="heavy" if n % 2 else "light") for n in range(100)]
    (met,) = (phase for phase in phases_of(STEPS, PLANS, heavy) if phase.step.what == "b joins")
    assert isinstance(met, Phase)
    assert not [words for words in unfollowed([met]) if "planned" in words]


def test_a_nodes_first_picture_counts_from_when_it_was_ready() -> None:
    drawn = [outcome(1, 18.0), outcome(2, 21.0, "b-0-light-x"), outcome(3, 25.0, "b-1-light-x")]
    assert first_picture(("b", 20.0), drawn) == (2.0, 3.0)
    assert first_picture(("b", 20.0), drawn[:1]) == (float("inf"), float("inf"))
    assert first_picture(None, drawn) == (None, None)


def test_the_accounts_see_what_is_lost_answered_twice_late_or_never_heard_of() -> None:
    answers = [outcome(1, 26.0), outcome(1, 26.0), replace(outcome(2, 44.0), finished=50.0)]
    drill = SimpleNamespace(
        witness=SimpleNamespace(outcomes=answers),
        offering=SimpleNamespace(said=dict.fromkeys(["p1", "p2", "p3", "p4"], "accepted"), refused=0),
        clients=SimpleNamespace(asked=1, answered=0, again=5, refused=[], unheard=["0: timed out"]),
        cluster=SimpleNamespace(
            observer=SimpleNamespace(plans=lambda *_: (PLANS, "")), settings=SimpleNamespace(plan_period_s=1.0)
        ),
        steps=STEPS,
        first_ready=("b", 20.0),
        broken=["something else"],
        restarts=0,
    )
    drill.offering.accepted = set(drill.offering.said)
    found = judged(cast(Drill, drill), SCENARIOS["node"])
    assert found.lost == ("p3", "p4")
    assert found.broken[:5] == (
        "something else",
        "2 lost: ['p3', 'p4']",
        "1 answered twice",
        "violation 40.00% is more than 1.0%",  # one late, and one client to whom the door did not answer
        "the new node began to draw after inf s, more than 2 planning periods",
    )
    assert "no answer for client 0: timed out" in found.broken
    (late,) = found.missed
    assert late.startswith("p2 light () ended after 6.00 s of 5.00, published 4.0 s after: b is drained; light at a-0")


def test_the_scenarios_have_nodes_of_two_types_and_unlike_numbers_of_slots() -> None:
    assert all({node.gpu for node in each.nodes} == {PROFILED, MADE_UP} for each in SCENARIOS.values())
    assert all(len({node.slots for node in each.nodes}) == 2 for each in SCENARIOS.values())
