"""The doctor on a node that something is wrong with: one line says what, and what to do; it never hangs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy import supervision
from deploy.acl import access_list
from models.diffusion import choose_device
from services.doctor.machine import Place, of_disk, of_models
from shared.broker import Broker
from shared.census import Planned
from shared.config import Settings
from shared.embedded import EmbeddedRedis, server_binaries, version_of
from shared.errors import ModelError
from shared.incarnation import machine
from shared.model import VISIBLE
from tests.helpers import a_plan, put_plan
from tests.quiet_hosts import mute_host, silent_host
from tests.servers import folder, free_port, secure_server
from tests.test_doctor import run_doctor
from tests.test_roles import PASSWORDS

# Two models that lie nowhere; the discriminator does. Whether it draws on a GPU is said with --gpu.
CATALOG = """
[models.absent]
source = "nobody/absent"
steps = 1
guidance = 0.0
size = 64
memory_gib = 0.5
licence = "none"

[cascades.here]
light = "absent"
heavy = "absent"
deadline_s = 5.0
gpu = "cpu"
metric = "accuracy"
discriminator = "scorer"
discriminator_s = 0.0
"""


class Head(NamedTuple):
    """A head's Redis with our users."""

    port: int
    admin: Broker

    def address(self, user: str, password: str = "") -> str:
        return f"redis://{user}:{password or PASSWORDS[user]}@127.0.0.1:{self.port}/0"


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    binary = server_binaries()[0]
    with folder() as where:
        file = where / "users.acl"
        file.write_text(access_list("d", PASSWORDS, version_of(binary)))
        options = ["--aclfile", str(file), "--maxmemory", "256mb"]
        with EmbeddedRedis(where, port=free_port(), binary=binary, durability="everysec", options=options) as server:
            address = f"redis://admin:{PASSWORDS['admin']}@127.0.0.1:{server.port}/0"
            admin = Broker(Settings(redis_url=address, deployment="d"))
            admin.check()
            put_plan(admin, a_plan())
            yield Head(server.port, admin)
            admin.close()


def wrong_lines(url: str, *options: str, **variables: str) -> list[str]:
    """What the doctor says is wrong, each line as subject and words; its exit code must say the same."""
    code, table = run_doctor(url, *options, **variables)
    rows = [line.split(maxsplit=2) for line in table.splitlines()]
    found = [f"{subject}: {words}" for subject, level, words in rows if level == "wrong"]
    assert code == int(bool(found)), table
    assert not any(password in table for password in PASSWORDS.values())
    return found


def the_line(url: str, *options: str, **variables: str) -> str:
    (line,) = wrong_lines(url, *options, **variables)
    return line


def test_a_node_that_nothing_is_wrong_with(head: Head) -> None:
    assert wrong_lines(head.address("agent")) == []


@pytest.mark.parametrize("user", ["agent", "worker", "gateway"])
def test_another_cascade_than_the_planners(head: Head, user: str) -> None:
    planned = Planned("sdturbo", {"light": "sd-turbo", "heavy": "sd-v1.5"})
    head.admin.client.set(head.admin.keys.leader("control"), planned.token("0f"), ex=120)
    try:
        line = the_line(head.address(user), CASCADE_CASCADE="tiny")
    finally:
        head.admin.client.delete(head.admin.keys.leader("control"))
    assert line.startswith("cascade: the planner's is sdturbo (sd-turbo, sd-v1.5), this machine is told tiny")
    assert "the same CASCADE" in line


def test_a_wrong_password(head: Head) -> None:
    line = the_line(head.address("worker", "not-the-password"))
    assert "user worker" in line and "password is wrong" in line and "REDIS_URL" in line
    assert "not-the-password" not in line


def test_a_name_that_no_user_has(head: Head) -> None:
    line = the_line(head.address("wroker", PASSWORDS["worker"]))
    assert "user wroker" in line and "our users are" in line and "worker" in line


def test_no_name_and_no_password(head: Head) -> None:
    line = the_line(f"redis://127.0.0.1:{head.port}/0")
    assert "asks for a name and a password" in line and "password_file" in line


def test_a_password_file_that_is_not_there(head: Head, tmp_path: Path) -> None:
    missing = tmp_path / "worker"
    line = the_line(f"redis://worker@127.0.0.1:{head.port}/0?password_file={missing}")
    assert str(missing) in line and "No such file" in line


def test_a_head_whose_name_nobody_knows() -> None:
    line = the_line("redis://no-such-head.invalid:6379/0")
    assert "no host is called no-such-head.invalid" in line and "REDIS_URL" in line


def test_a_head_where_nothing_listens() -> None:
    line = the_line(f"redis://127.0.0.1:{free_port()}/0")
    assert "nothing listens there" in line


def test_a_certificate_that_nobody_vouches_for() -> None:
    with secure_server(server_binaries()[0], ["--appendonly", "yes"]) as address:
        line = the_line(address.partition("?")[0])
    assert "ssl_ca_certs=FILE" in line


def test_a_node_name_that_another_machine_goes_by(head: Head) -> None:
    about = {"name": "gpu-1", "slots": "2"}
    for where, expected in (("another-boot", 1), (machine(), 0)):
        head.admin.announce_node("gpu-1", {**about, "machine": where})
        found = wrong_lines(head.address("agent"), "--node", "gpu-1")
        assert len(found) == expected
        assert all("another machine is node gpu-1" in line and "CASCADE_NODE" in line for line in found)
    head.admin.announce_node("gpu-1", {**about, "machine": "another-boot"})
    assert wrong_lines(head.address("agent"), "--node", "gpu-2") == []


def test_a_node_name_that_is_none(head: Head) -> None:
    environment = {**os.environ, "REDIS_URL": head.address("agent"), "CASCADE_NODE": "gpu 1"}
    ended = subprocess.run(
        [sys.executable, "-m", "services.doctor"], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr.count("\n"), "node: " in ended.stderr) == (2, 1, True)


def test_a_deployment_that_no_planner_knows_is_a_note(head: Head) -> None:
    code, table = run_doctor(head.address("admin"), CASCADE_DEPLOYMENT="another")
    assert code == 0, table
    assert "no planner ever made a plan for another" in table
    assert "no planner" not in run_doctor(head.address("admin"))[1]


@pytest.mark.parametrize("user", ["agent", "worker", "keeper"])
def test_a_deployment_that_our_users_are_not_for(head: Head, user: str) -> None:
    line = the_line(head.address(user), CASCADE_DEPLOYMENT="another")
    assert "may touch nothing of the deployment another" in line and "CASCADE_DEPLOYMENT" in line


@pytest.fixture
def catalog(tmp_path: Path) -> str:
    (tmp_path / "catalog.toml").write_text(CATALOG)
    for each in ("profiles", "quality", "scorer"):
        (tmp_path / each).mkdir()
    rows = "model,gpu,batch,p50_s,p95_s,memory_gib,ceiling,source\n"
    rows += "".join(f"absent,{gpu},1,0.1,0.1,,4,made up\n" for gpu in ("cpu", "cpu-fast", "h200"))
    (tmp_path / "profiles" / "absent.csv").write_text(rows)
    curve = "selector,heavy_share,fid,accuracy,source\n"
    curve += "discriminator,0.0,5.0,0.6,made up\ndiscriminator,1.0,4.0,0.7,made up\n"
    (tmp_path / "quality" / "here.csv").write_text(curve)
    (tmp_path / "scorer" / "model.safetensors").touch()
    return str(tmp_path / "catalog.toml")


def test_no_weights(head: Head, catalog: str) -> None:
    told = {"CASCADE_CATALOG": catalog, "CASCADE_CASCADE": "here"}
    line = the_line(head.address("worker"), **told)
    assert line.startswith("weights: absent: ") and "`python -m models.fetch --cascade here`" in line
    assert wrong_lines(head.address("keeper"), **told) == [], "the head draws nothing"
    assert wrong_lines(head.address("worker"), "--backend", "sleeping", **told) == []


def test_no_weights_where_a_container_may_only_read_them(head: Head, catalog: str) -> None:
    """Nothing can be fetched from in there, and how full that disk is matters to who fetches."""
    told = {"CASCADE_CATALOG": catalog, "CASCADE_CASCADE": "here"}
    with small_disk(Path(catalog).parent / "weights", 1) as disk:
        found = wrong_lines(head.address("worker"), **told)
        assert [line.partition(":")[0] for line in found] == ["weights", "disk"], "who could fetch here has no room"
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        line = the_line(head.address("worker"), **told)
    assert line.startswith("weights: absent: ") and "`docker compose run --rm fetch`" in line
    assert "models.fetch" not in line


def test_no_gpu(head: Head, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho No devices were found >&2; exit 6\n")
    program.chmod(0o755)
    told = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    line = the_line(head.address("worker"), "--gpu", "h200", **told)
    assert line.startswith("gpu: none, and cascade tiny draws on h200") and "driver" in line
    assert wrong_lines(head.address("worker"), **told) == [], "the tiny cascade draws on a processor"
    assert wrong_lines(head.address("control"), "--gpu", "h200", **told) == [], "the head draws nothing"


@pytest.mark.parametrize(("gpu", "is_one"), [("cpu", False), ("cpu-fast", True), ("h200", True)])
def test_node_worker_and_doctor_tell_a_gpu_by_one_rule(
    gpu: str, is_one: bool, catalog: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CASCADE_CATALOG", catalog)
    monkeypatch.setenv("PATH", "")  # no nvidia-smi
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    settings = Settings(cascade="here", gpu=gpu)
    assert next(of_models(settings, on_node=True)).level == ("wrong" if is_one else "note")
    with pytest.raises(ModelError) if is_one else nullcontext():
        choose_device(gpu)
    monkeypatch.setenv("CASCADE_CASCADE", "here")
    monkeypatch.setenv("CASCADE_GPU", gpu)
    monkeypatch.setattr(sys, "argv", ["supervision", "--no-head"])
    supervision.main()
    assert (VISIBLE in capsys.readouterr().out) == is_one


@contextmanager
def small_disk(where: Path, mib: int) -> Iterator[Path]:
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(where)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def test_a_full_disk_is_one_line_whatever_goes_there(head: Head, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 200) as disk:
        told = {"CASCADE_LOG_DIR": str(disk / "logs"), "CASCADE_PICTURES_AT": str(disk / "pictures")}
        assert wrong_lines(head.address("worker"), **told) == []
        with (disk / "filler").open("wb") as filler, pytest.raises(OSError, match="No space"):
            while True:
                filler.write(bytes(2**20))
                filler.flush()
        line = the_line(head.address("worker"), **told)
    assert line.startswith("disk: full, 0 MiB free for logs (") and "pictures (" in line
    assert "make room" in line and "CASCADE_LOG_DIR" in line


def test_a_full_disk_of_models_is_wrong_where_some_are_to_come(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        for fetches, level in ((True, "wrong"), (False, "note")):
            (found,) = of_disk([Place("models", disk / "weights", "", False, fetches)])
            assert (found.level, found.subject) == (level, "disk")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 100) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        (found,) = of_disk([Place("logs", disk / "logs", "CASCADE_LOG_DIR", True, True)])
    assert found.level == "wrong" and "Read-only" in found.words and "CASCADE_LOG_DIR" in found.words


@pytest.mark.parametrize("host", [silent_host, mute_host])
def test_a_head_that_is_silent_is_given_up(host: object) -> None:
    assert callable(host)
    with host() as port:
        began = time.monotonic()
        line = the_line(f"redis://127.0.0.1:{port}/0")
        assert time.monotonic() - began < 60, "it hangs"
    assert "silent" in line and "firewalls" in line
