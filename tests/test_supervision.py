"""A node's supervisor: which GPU each slot sees, what is refused at once, and in which order all ends."""

from __future__ import annotations

import configparser
import os
import re
import sys
from pathlib import Path

import pytest

from deploy.devices import devices_of
from deploy.supervision import ROOT, can_be_opened, configuration
from models.diffusion import choose_device
from services.agent import program
from shared.errors import ModelError, SettingsError
from shared.model import VISIBLE
from shared.schema import STAGES
from tests.composing import said_by

SOCKET = Path("/tmp/s.sock")
LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-00000000-0000-0000-0000-000000000000)
  MIG 3g.20gb     Device  0: (UUID: MIG-00000000-0000-0000-0000-00000000000a)
  MIG 3g.20gb     Device  1: (UUID: MIG-GPU-00000000-0000-0000-0000-000000000000/2/0)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111-1111-1111-1111-111111111111)
"""
UNPARTED = "".join(line for line in LISTING.splitlines(keepends=True) if line.startswith("GPU"))
INSTANCES = ("MIG-00000000-0000-0000-0000-00000000000a", "MIG-GPU-00000000-0000-0000-0000-000000000000/2/0")
MIGS = "MIG-41b35f6e-5a1c-5b0f-9c1d-000000000001,MIG-GPU-1a2b/1/0"


def programs_of(text: str) -> dict[str, dict[str, str]]:
    parsed = configparser.RawConfigParser()
    parsed.read_string(text)
    return {name.removeprefix("program:"): dict(parsed[name]) for name in parsed.sections()}


@pytest.mark.parametrize(
    ("given", "slots", "visible", "expected"),
    [
        ("", 3, None, ("0", "1", "2")),
        ("", 2, "4,5,6", ("4", "5")),
        ("0,0,1,1", 4, None, ("0", "0", "1", "1")),
        ("1, 0", 2, "4,5", ("1", "0")),
        (MIGS, 2, None, tuple(MIGS.split(","))),
    ],
)
def test_each_slot_has_its_device(given: str, slots: int, visible: str | None, expected: tuple[str, ...]) -> None:
    assert devices_of(given, slots, {} if visible is None else {VISIBLE: visible}) == expected


@pytest.mark.parametrize(
    ("given", "visible", "said"),
    [
        ("0", "", "devices: 1 for 2 slots; .* --devices 0,0 "),
        ("0,1,2", "", "devices: 3 for 2 slots"),
        ("", "3", f"{VISIBLE}: 1 for 2 slots; .* --devices 3,3 "),
        ("0,,1", "", "devices: '' is no device"),
        ("0,a100", "", "devices: 'a100' is no device; name numbers"),
        ("", "all", f"{VISIBLE}: 'all' is no device"),
    ],
)
def test_a_wrong_count_and_what_is_no_device_is_said(given: str, visible: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        devices_of(given, 2, {VISIBLE: visible})


def test_where_gpus_are_parted_each_slot_has_an_instance_by_its_uuid() -> None:
    assert devices_of("", 2, {}, lambda: LISTING) == INSTANCES
    assert devices_of("", 3, {}, lambda: LISTING)[2] == "GPU-11111111-1111-1111-1111-111111111111"
    assert devices_of("", 2, {}, lambda: UNPARTED) == ("0", "1")
    assert devices_of("0,0", 2, {}, lambda: LISTING) == ("0", "0")
    assert devices_of("", 1, {VISIBLE: "1"}, lambda: LISTING) == ("1",)
    with pytest.raises(SettingsError, match="nvidia-smi -L: 3 for 4 slots"):
        devices_of("", 4, {}, lambda: LISTING)


def test_the_node_asks_the_driver_which_instances_it_has(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && cat <<'END'\n{LISTING}END\n")
    tool.chmod(0o755)
    code, out, _ = command(
        "--no-head", CASCADE_CASCADE="sdturbo", CASCADE_SLOTS="2", PATH=f"{tmp_path}:{os.environ['PATH']}"
    )
    found = programs_of(out)
    assert code == 0
    for slot, instance in enumerate(INSTANCES):
        assert f'{VISIBLE}="{instance}"' in found[program(slot, "heavy")]["environment"]


def test_both_workers_of_a_slot_see_its_device_and_nobody_else_sees_one() -> None:
    found = programs_of(configuration(Path("/f"), SOCKET, 2, {}, devices=("0", "MIG-1")))
    for slot, device in enumerate(("0", "MIG-1")):
        for stage in STAGES:
            assert found[program(slot, stage)]["environment"] == f'CASCADE_SHARES="1",{VISIBLE}="{device}"'
    shared = programs_of(configuration(Path("/f"), SOCKET, 3, {}, devices=("0", "1", "0")))
    assert [shared[program(slot, "light")]["environment"].split(",")[0] for slot in range(3)] == [
        f'CASCADE_SHARES="{share}"' for share in (2, 1, 2)
    ]
    assert VISIBLE not in found["agent"]["environment"] + found["supervisord"]["environment"]
    assert VISIBLE not in configuration(Path("/f"), SOCKET, 2, {}), "a run on one machine leaves it to CUDA"


def test_workers_are_one_group_that_stops_before_who_buries_them() -> None:
    found = programs_of(configuration(Path("/f"), SOCKET, 3, {}, gateway=True))
    group = found["group:workers"]
    workers = {name for name in found if name.startswith("worker-")}
    assert set(group["programs"].split(",")) == workers == {program(s, stage) for s in range(3) for stage in STAGES}
    # Supervisor's default is 999, and the highest stops first.
    assert int(group["priority"]) > max(
        int(found[name].get("priority", 999)) for name in ("agent", "control", "keeper")
    )


def command(*options: str, **environment: str) -> tuple[int, str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CASCADE_", "REDIS_", "CUDA_"))}
    words = [sys.executable, "-m", "deploy.supervision", *options]
    said = said_by(words, cwd=ROOT, env={**kept, **environment})
    return said.returncode, said.stdout, said.stderr


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CASCADE_GPU": "h100"}, r"sd-turbo.csv has no rows for GPU 'h100'; it knows a100-80g"),
        ({"CASCADE_CASCADE": "none"}, r"no cascade 'none' in .*catalog.toml; there is tiny"),
        ({"CASCADE_SLOTS": "0"}, r"slots: .* greater than or equal to 1"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, r"1 for 2 slots"),
    ],
)
def test_a_node_that_cannot_draw_says_so_in_one_line_before_anything_starts(
    environment: dict[str, str], said: str
) -> None:
    code, out, errors = command("--run", **{"CASCADE_CASCADE": "sdturbo", "CASCADE_SLOTS": "2", **environment})
    assert (code, out) == (2, "")
    assert re.search(said, errors), errors
    assert errors.count("\n") == 1


def test_slots_come_from_the_environment_and_the_command_line_wins() -> None:
    for options, slots in (((), 3), (("--slots", "2"), 2)):
        code, out, _ = command("--no-head", *options, CASCADE_SLOTS="3", CASCADE_CASCADE="sdturbo")
        found = programs_of(out)
        assert code == 0
        assert len(found["group:workers"]["programs"].split(",")) == slots * len(STAGES)
        assert f'{VISIBLE}="{slots - 1}"' in found[program(slots - 1, "heavy")]["environment"]
        assert "control" not in found


def test_slots_of_a_processor_are_given_no_device() -> None:
    _, out, _ = command("--no-head", CASCADE_CASCADE="tiny", CASCADE_SLOTS="4", CUDA_VISIBLE_DEVICES="0")
    assert VISIBLE not in out


def test_a_slot_whose_gpu_is_not_there_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv(VISIBLE, "7")
    with pytest.raises(ModelError, match=r"sees no CUDA device here \(CUDA_VISIBLE_DEVICES=7"):
        choose_device("a100-80g")
    monkeypatch.delenv(VISIBLE)
    with pytest.raises(ModelError, match="sees no CUDA device here; use --gpu cpu"):
        choose_device("a100-80g")


def test_where_the_output_cannot_be_opened_programs_log_into_files(tmp_path: Path) -> None:
    assert can_be_opened(tmp_path / "log")
    assert not can_be_opened(tmp_path), "as supervisor would be refused a pipe of root's, and start nothing"
    spoken = programs_of(configuration(Path("/f"), SOCKET, 1, {}, spoken=True))
    written = programs_of(configuration(Path("/f"), SOCKET, 1, {}))
    assert (spoken["agent"]["stdout_logfile"], spoken["agent"]["stdout_logfile_maxbytes"]) == ("/dev/fd/1", "0")
    assert (written["agent"]["stdout_logfile"], written["agent"]["stdout_logfile_maxbytes"]) == ("/f/agent.log", "10MB")
