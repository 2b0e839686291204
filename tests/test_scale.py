"""What one Redis carries, by arithmetic on measured costs, and large fleets in the simulator."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.scale import main
from analysis.scale_fleets import TYPES, mixed, of_types, simulated
from analysis.scale_limits import (
    LARGEST,
    PLAN_SLOTS,
    RESOURCES,
    SOFT,
    Costs,
    Host,
    deployments_needed,
    drawn_per_s,
    ends,
    load_of,
    measured,
    taken,
)
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.cluster import hash_slot
from shared.connection import CommandRefused
from shared.errors import SettingsError
from shared.schema import STAGES
from tests.helpers import a_plan, put_plan

COSTS = Costs(prompt_s=1e-4, byte_s=1e-8, slot_s=1e-4, pair_s=1e-8, left_bytes=1000.0, whole_per_s=1.0)
HOST = Host(cores=1.0, memory_bytes=4e9, network_bytes_per_s=1e9)


def test_ten_gpus_through_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--gpus", "10", "--cascades", "sdturbo", "--fleets", "10", "--time", "0.06", "--out", str(tmp_path)]
    assert main(small) == 0
    capsys.readouterr()
    with (tmp_path / "scale.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["kind"], row["case"], row["figure"]): float(row["value"]) for row in rows}
    # 32 at once take 1.58 s by the profile: 10 GPUs x 32 / 1.58 s x 0.9.
    bare = "all light, pictures elsewhere"
    assert found["limit", bare, "prompts/s"] == pytest.approx(10 * 32 / 1.58 * 0.9, rel=0.01)
    assert found["limit", bare, "share of network"] == 0 < found["limit", bare, "share of core"]
    assert found["fleet", "quality", "prompts"] == found["fleet", "random", "prompts"] > 100
    assert found["fleet", "quality", "violation"] <= 0.05
    assert found["fleet", "quality", "fid"] < found["fleet", "quality", "fid by lot"]
    text = (tmp_path / "scale.md").read_text()
    assert "python -m analysis.scale --gpus 10" in text
    assert text.count("| sdturbo | 10 |") == 4 + 4 + 3, "a row of limits, of deployments or of a fleet is missing"
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_shares_add_up_as_by_hand() -> None:
    cascade = load_cascade("sdturbo")
    load = replace(load_of(cascade, 100, 0.5), prompts_per_s=200.0, picture_bytes=50_000.0, ttl_s=60.0, keep_s=600.0)
    found = taken(load, COSTS, HOST)
    given = 200 * 1.5 * 50_000  # bytes of pictures a second
    assert found["core"] == pytest.approx(200 * 1e-4 + given * 1e-8 + 100 * 1e-4 + 100 * 100 * 1e-8)
    assert found["memory"] == pytest.approx((200 * 1000 * 600 + 1000 * 100 * 24) / 3e9)
    assert found["network"] == pytest.approx(given / 1e9)
    assert found["pictures"] == pytest.approx(given * 60 / 1e9)
    apart = taken(replace(load, elsewhere=True), COSTS, HOST)
    assert apart["core"] == pytest.approx(200 * 1e-4 + 100 * 1e-4 + 1e-4)
    assert (apart["network"], apart["pictures"]) == (0, 0)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("name", ["sdturbo", "sdxlltn"])
def test_where_it_ends_one_slot_less_still_fits(name: str, elsewhere: bool) -> None:
    cascade = load_cascade(name)
    for resource, slots in ends(cascade, 0.5, COSTS, HOST, elsewhere=elsewhere).items():
        shares = [
            taken(load_of(cascade, n, 0.5, elsewhere=elsewhere), COSTS, HOST)[resource] for n in (slots - 1, slots)
        ]
        assert shares[0] <= 1, resource
        assert shares[1] > 1 or slots == LARGEST, resource


def test_cut_into_as_few_deployments_as_leave_each_half_a_node() -> None:
    load = load_of(load_cascade("sdturbo"), 1_000, 0.6)
    parts = deployments_needed(load, COSTS, HOST)
    assert parts > 1

    def most(count: int) -> float:
        part = replace(load, slots=-(-load.slots // count), prompts_per_s=load.prompts_per_s / count)
        return max(share for name, share in taken(part, COSTS, HOST).items() if name != SOFT)

    assert most(parts) <= 0.5 < most(parts - 1)


def test_the_committed_measurements_are_complete() -> None:
    found = measured()
    assert all(value > 0 for value in (found.prompt_s, found.byte_s, found.slot_s, found.pair_s, found.left_bytes))


def test_who_lacks_a_measurement_is_told_how_to_get_it(tmp_path: Path) -> None:
    table = tmp_path / "bench.csv"
    table.write_text("figure,value\nhop,1\n")
    with pytest.raises(SettingsError, match=r"pictures of 0 KiB.*make bench BENCH='queue polling'"):
        measured(table)


def test_heavier_means_fewer_prompts() -> None:
    cascade = load_cascade("sdturbo")
    assert drawn_per_s(cascade, 100, 0.0) > 5 * drawn_per_s(cascade, 100, 0.6)


@pytest.mark.parametrize("gpus", [1, 10, 100, 1_000])
def test_a_mixed_fleet_has_all_its_gpus_in_nodes_of_one_type(gpus: int) -> None:
    slots = mixed(gpus)
    assert len({slot.name for slot in slots}) == len(slots) == gpus
    kinds: dict[str, set[str]] = {}
    for slot in slots:
        kinds.setdefault(slot.node, set()).add(slot.gpu)
    assert all(len(types) == 1 for types in kinds.values())
    counts = Counter(slot.gpu for slot in slots)
    assert all(abs(counts[each.name] - gpus * each.share) <= 1 for each in TYPES)


def test_a_faster_type_takes_less_time() -> None:
    cascade = of_types(load_cascade("sdturbo"))
    seconds = {each.name: cascade.service_s("heavy", 4, each.name) for each in TYPES}
    assert all(seconds[each.name] == pytest.approx(each.pace * seconds["type-a"]) for each in TYPES)


def test_a_cascade_without_a_trace_is_refused() -> None:
    with pytest.raises(SettingsError, match="no trace is known for 'tiny'"):
        next(simulated(load_cascade("tiny"), 10, ("quality",), 0.1))


@pytest.mark.parametrize("text", ["ten", "0", "10,-1"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match="gpus"):
        main(["--gpus", text])


def test_a_plan_can_name_as_many_slots_as_is_said_and_not_many_more(broker: Broker) -> None:
    def of(slots: int, version: int) -> Any:
        return a_plan(version, assignment={f"node-{n // 8}:{n % 8}": STAGES[n % 2] for n in range(slots)})

    put_plan(broker, of(PLAN_SLOTS, 1))
    with pytest.raises(CommandRefused, match="too many results to unpack"):
        put_plan(broker, of(int(PLAN_SLOTS * 1.03), 2))
    standing = broker.standing_plan()
    assert standing is not None
    assert (standing.version, len(standing.assignment)) == (1, PLAN_SLOTS), "the last plan does not stand"


# Appendix A of the cluster's specification; braces as it describes them.
@pytest.mark.parametrize(
    ("key", "same"),
    [("{user1000}.following", "user1000"), ("foo{}{bar}", "foo{}{bar}"), ("foo{{bar}}zap", "{bar"), ("a{b}{c}", "b")],
)
def test_braces_decide_the_slot(key: str, same: str) -> None:
    assert hash_slot("123456789") == 0x31C3
    assert hash_slot(key) == hash_slot(same) or same == key


def test_every_resource_is_told() -> None:
    assert set(taken(load_of(load_cascade("sdturbo"), 10, 0.0), COSTS, HOST)) == set(RESOURCES)
