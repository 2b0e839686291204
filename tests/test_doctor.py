"""The doctor: each rule as a table, and the command on real servers."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from rich.console import Console

from deploy.acl import access_list
from deploy.supervision import ROOT
from services.doctor.__main__ import show
from services.doctor.finding import Finding
from services.doctor.machine import of_gpu, of_licence, of_weights
from services.doctor.server import (
    bound_to,
    exposure,
    hosts_of,
    is_loopback,
    of_access,
    of_clock,
    of_memory,
    of_persistence,
    of_version,
)
from shared.broker import Broker
from shared.catalog import load_cascade, load_model
from shared.checkup import READS, WRITES, anonymous, answers_anybody, lacking
from shared.config import Settings
from shared.embedded import EmbeddedRedis, version_of
from tests.conftest import BINARIES, name_of
from tests.servers import folder
from tests.test_roles import PASSWORDS

EVERY_SERVER = pytest.mark.parametrize("binary", BINARIES, ids=name_of)


@pytest.mark.parametrize(
    ("hosts", "answers", "level"),
    [
        (["10.0.0.1"], True, "wrong"),
        (["127.0.0.1", "0.0.0.0"], True, "wrong"),
        (["::"], True, "wrong"),
        (["127.0.0.1", "::1", "127.0.1.1", "localhost"], True, "note"),
        ([], True, "note"),
        (["10.0.0.1"], False, "ok"),
        ([], False, "ok"),
        (["10.0.0.1"], None, "note"),
    ],
)
def test_an_answer_without_a_password_beyond_this_machine_is_wrong(
    hosts: list[str], answers: bool | None, level: str
) -> None:
    assert exposure(hosts, answers).level == level


def test_the_hosts_of_an_address_are_those_it_names() -> None:
    assert hosts_of("redis://me:secret@10.0.0.1:6379/0") == ["10.0.0.1"]
    assert hosts_of("redis+sentinel://me@a:1,[::1]:2/pictures") == ["a", "::1"]
    assert hosts_of("unix:///run/redis.sock?db=0") == []
    assert not is_loopback("no-such-host.invalid")


@pytest.mark.parametrize(
    ("settings", "hosts"),
    [
        ({"bind": "* -::*", "protected-mode": "no", "port": "6379"}, ["0.0.0.0", "::*"]),
        ({"bind": "127.0.0.1 -::1", "protected-mode": "no", "port": "6379"}, ["127.0.0.1", "::1"]),
        ({"bind": "", "protected-mode": "no", "port": "6379"}, ["0.0.0.0"]),
        ({"bind": "", "protected-mode": "yes", "port": "6379"}, []),
        ({"bind": "0.0.0.0", "protected-mode": "yes", "port": "6379"}, ["0.0.0.0"]),
        ({"bind": "0.0.0.0", "protected-mode": "no", "port": "0", "tls-port": "6379"}, ["0.0.0.0"]),
        ({"bind": "*", "protected-mode": "no", "port": "0"}, []),
        ({}, []),
    ],
)
def test_a_server_listens_where_its_settings_say(settings: dict[str, str], hosts: list[str]) -> None:
    assert bound_to(settings) == hosts
    newer = [] if settings.get("protected-mode", "yes") == "yes" else hosts
    assert bound_to(settings, (7, 0)) == newer
    if any(host in ("0.0.0.0", "::*") for host in hosts):
        assert exposure(hosts, answers=True).level == "wrong"


@pytest.mark.parametrize(
    ("version", "level"),
    [("5.0.14", "wrong"), ("6.0.16", "wrong"), ("6.2.14", "note"), ("7.0.15", "ok"), ("10.1", "ok")],
)
def test_the_version_decides(version: str, level: str) -> None:
    assert of_version(version).level == level


@pytest.mark.parametrize(
    ("policy", "limit", "levels"),
    [
        ("noeviction", 2**30, ["ok", "ok"]),
        ("noeviction", 0, ["ok", "note"]),
        ("allkeys-lru", 2**30, ["wrong", "ok"]),
        ("volatile-ttl", 0, ["wrong", "note"]),
    ],
)
def test_memory_is_limited_and_nothing_is_evicted(policy: str, limit: int, levels: list[str]) -> None:
    info: dict[str, object] = {"maxmemory_policy": policy, "maxmemory": limit, "used_memory": 2**20}
    assert [finding.level for finding in of_memory(info)] == levels


def test_persistence_is_on_and_works() -> None:
    assert of_persistence({"aof_enabled": 1, "aof_last_write_status": "ok"}, {}).level == "ok"
    assert of_persistence({"aof_enabled": 1, "aof_last_write_status": "err"}, {}).level == "wrong"
    assert of_persistence({"aof_enabled": 0}, {}).level == "wrong"


@pytest.mark.parametrize(("offset_s", "within_s", "level"), [(0.2, 0.1, "ok"), (-1.5, 0.1, "wrong"), (1.5, 1.0, "ok")])
def test_clocks_agree_as_far_as_can_be_told(offset_s: float, within_s: float, level: str) -> None:
    assert of_clock(offset_s, within_s).level == level


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        ("TYPE=NODE\nEXPIRATION=2030-05-31\n", "ok", "2030-05-31"),
        ("TYPE=NODE\nEXPIRATION=2026-02-01\n", "note", "9 days"),
        ("TYPE=NODE\nEXPIRATION=2025-12-31\n", "wrong", "2025-12-31"),
        ("WLSACCESSID=x\n", "ok", "no end"),
        (None, "wrong", "cannot be read"),
    ],
)
def test_the_licence_is_told_with_its_end(tmp_path: Path, text: str | None, level: str, words: str) -> None:
    finding = of_licence(tmp_path / "gurobi.lic", text, date(2026, 1, 23), asked=False)
    assert (finding.level, words in finding.words) == (level, True)


def test_no_licence_is_no_fault() -> None:
    assert of_licence(None, None, date.today(), asked=False).words.endswith("HiGHS")
    assert "evaluation" in of_licence(None, None, date.today(), asked=True).words


def test_a_gpu_that_does_not_answer_is_wrong_and_none_at_all_where_one_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (of_gpu().level, of_gpu("cascade x draws on h200").level) == ("note", "wrong")
    program = tmp_path / "nvidia-smi"
    for script, level in (
        ("echo 'H200, 143771 MiB'", "ok"),
        ("echo no driver >&2; exit 9", "wrong"),
        ("echo No devices were found", "note"),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert of_gpu().level == level


def test_weights_are_looked_for_where_the_loader_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert [finding.level for finding in of_weights(Settings(), load_cascade("tiny"))] == ["ok"] * 3
    cascade = load_cascade("sdxlltn")
    found = list(of_weights(Settings(), cascade))
    assert [finding.level for finding in found] == ["wrong", "wrong"]
    assert found[0].words.startswith("sdxl-lightning, sdxl-lightning-unet, sdxl-base: ")
    assert found[0].words.endswith("`python -m models.fetch --cascade sdxlltn` gets them")
    assert found[1].words.startswith("discriminator: ")
    part = load_model("sdxl-lightning").parts["unet"]
    for revision, there in (("another", False), (part.revision, True)):
        file = tmp_path / "models--ByteDance--SDXL-Lightning" / "snapshots" / revision / part.file
        file.parent.mkdir(parents=True)
        file.touch()
        lacks = next(finding.words for finding in of_weights(Settings(), cascade) if finding.level == "wrong")
        assert ("sdxl-lightning-unet" not in lacks) == there, "at the pinned revision alone"
    asleep = Settings(cascade="sdxlltn", backend="sleeping")
    assert {finding.level for finding in of_weights(asleep, cascade)} == {"note", "ok"}
    assert {finding.level for finding in of_weights(Settings(), cascade, on_node=False)} == {"note", "ok"}


def test_access_is_judged_by_what_is_missing() -> None:
    assert of_access("worker", "worker", []).level == "ok"
    assert of_access("worker", "control", ["write plan"]).level == "wrong"
    assert of_access("default", "", []).level == "note"


def test_an_address_loses_name_and_password() -> None:
    assert anonymous("redis://a:b@h:1/2?password_file=/x&ssl_ca_certs=/y") == "redis://h:1/2?ssl_ca_certs=%2Fy"
    assert anonymous("unix://a:b@/run/redis.sock?db=0") == "unix:///run/redis.sock?db=0"


def run_doctor(url: str, *options: str, **variables: str) -> tuple[int, str]:
    environment = {**os.environ, "REDIS_URL": url, "CASCADE_DEPLOYMENT": "d", **variables}
    command = [sys.executable, "-m", "services.doctor", *options]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stdout


def said_of(subject: str, table: str) -> str:
    return next(line for line in table.splitlines() if line.startswith(f"{subject} "))


@EVERY_SERVER
def test_each_role_has_what_it_needs_and_lacks_what_others_need(binary: Path) -> None:
    with folder() as where:
        file = where / "users.acl"
        file.write_text(access_list("d", PASSWORDS, version_of(binary)))
        options = ["--aclfile", str(file), "--maxmemory", "256mb"]
        with EmbeddedRedis(where, binary=binary, durability="everysec", options=options) as server:
            addresses = {user: server.url.replace("unix://", f"unix://{user}:{PASSWORDS[user]}@") for user in PASSWORDS}
            admin = Broker(Settings(redis_url=addresses["admin"], deployment="d"))
            admin.check()
            before = snapshot(admin)
            for role in WRITES:
                mine = Settings(redis_url=addresses[role], deployment="d")
                assert lacking(Broker(mine), role) == []
                assert answers_anybody(mine) is False
            reader = lacking(Broker(Settings(redis_url=addresses["reader"], deployment="d")), "worker")
            assert reader == [*(f"write {name}" for name in WRITES["worker"]), "run scripts"]
            assert snapshot(admin) == before, "the doctor changes nothing"
            code, table = run_doctor(addresses["worker"])
            assert code == 0, table
            assert "can do what the worker needs" in said_of("access", table)
            code, table = run_doctor(addresses["reader"], "--role", "keeper")
            assert code == 1
            assert "may not write stage:light:" in said_of("access", table)
            assert PASSWORDS["reader"] not in table
            assert run_doctor(server.url)[0] == 1, "without a password it is turned away"


def snapshot(admin: Broker) -> dict[bytes, Any]:
    client: Any = admin.client
    return {key: client.dump(key) for key in sorted(client.keys("*"))}


def test_every_role_is_known_to_the_doctor() -> None:
    assert set(WRITES) == set(READS) == set(PASSWORDS) - {"admin"}


def test_a_server_that_forgets_and_evicts_is_wrong() -> None:
    with folder() as where, EmbeddedRedis(where, options=["--maxmemory-policy", "allkeys-lru"]) as server:
        code, table = run_doctor(server.url)
    assert code == 1
    assert "wrong" in said_of("eviction", table)
    assert "wrong" in said_of("persistence", table)
    assert "note" in said_of("password", table)


def test_a_server_that_is_not_there_is_wrong() -> None:
    code, table = run_doctor("redis://127.0.0.1:1/0", FORCE_COLOR="1")  # makes no terminal of a pipe
    assert code == 1
    assert "wrong" in said_of("redis", table)
    assert "\x1b" not in table


LONG = (
    "redis://[fd00:a:b::1]:1 full, 0 MiB free for logs (/srv/"
    + "a-folder-with-a-long-name/" * 4
    + "logs): make room there, or set CASCADE_LOG_DIR"
)
FINDINGS = [Finding("persistence", "ok", "snapshots"), Finding("disk", "wrong", LONG)]


@pytest.mark.parametrize("width", [40, 80])
def test_a_finding_is_whole_on_a_narrow_terminal(width: int) -> None:
    out = io.StringIO()
    show(FINDINGS, Console(file=out, width=width, force_terminal=True, no_color=True, highlight=False))
    lines = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    assert "".join(line.strip() for line in lines[1:]).replace(" ", "") == f"diskwrong{LONG}".replace(" ", "")


def test_a_finding_is_one_line_in_a_pipe() -> None:
    out = io.StringIO()
    show(FINDINGS, Console(file=out, width=80, force_terminal=False))
    assert out.getvalue().splitlines() == ["persistence  ok     snapshots", f"disk         wrong  {LONG}"]
