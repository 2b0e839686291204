"""The compose files: their commands run as processes here, and nothing is open to anybody without a password."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from deploy.acl import ROLES, USERS
from deploy.runner import Run
from deploy.secrets import OF_A_NODE, SERVER, USERS_FILE, make_secrets
from deploy.supervision import HEAD as HEADS_SERVICES
from deploy.supervision import ROOT, STOP_WAIT_S
from models.switches import SETTING
from shared.broker import Broker
from shared.catalog import OWN_CATALOG
from shared.config import PREFIX, Settings
from shared.embedded import server_binaries
from shared.errors import CascadeError
from tests.composed import answers, broker_as, redis_of_the_head
from tests.composing import (
    CPU_NODE,
    DEMANDED,
    FILES,
    GPU_NODE,
    HEAD,
    environment_here,
    filled,
    healthcheck_here,
    here,
    said_by,
    seconds,
    services,
    started,
)
from tests.operating import PAGES
from tests.processes import until

ALL = [(file, name) for file in FILES for name in services(file)]
OURS = [(file, name) for file, name in ALL if name not in ("redis", "prometheus", "grafana")]
# Settings for which the files have a variable of another name, or a place of their own, or which differ by process.
OF_THE_FILES = {
    *("redis_url", "deployment", "cascade", "policy", "backend", "node", "resident", "slots", "shares", "gpu"),
    *("stage", "slot", "http_host", "http_port", "http_keys", "supervisor_socket", "beats", "log_dir"),
    "grace_s",  # the grace periods of the containers and supervisor's, which must be longer, stand in the files
}
LOOPBACK = "127.0.0.1:"


def test_the_head_runs_redis_and_the_heads_services() -> None:
    always = {name for name, service in services(HEAD).items() if "profiles" not in service}
    assert always == {"redis", *HEADS_SERVICES, "gateway"}


@pytest.mark.parametrize(("file", "name"), OURS, ids=lambda each: getattr(each, "stem", each))
def test_every_command_is_one_that_runs(file: Path, name: str) -> None:
    words = started(services(file)[name])
    assert words[:2] == ["python", "-m"]
    options = {word for word in words if word.startswith("--")}
    said = said_by(here([*words[:3], "--help"], {}), cwd=ROOT)
    assert said.returncode == 0, said.stderr
    assert all(option in said.stdout for option in options)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_published_is_on_a_named_address(file: Path) -> None:
    for name, service in yaml.safe_load(file.read_text())["services"].items():
        for port in service.get("ports", []):
            assert port.startswith(("${HEAD_ADDRESS:?", LOOPBACK)), f"{name}: never on all addresses"


@pytest.mark.parametrize("lacking", DEMANDED)
def test_a_gpu_node_says_which_variable_it_lacks(lacking: str) -> None:
    services(GPU_NODE)
    with pytest.raises(KeyError, match=f"set {lacking} to"):
        services(GPU_NODE, {name: value for name, value in DEMANDED.items() if name != lacking})
    demanded = set(re.findall(r"\$\{(\w+):\?", GPU_NODE.read_text()))
    assert demanded == set(DEMANDED), "three variables, and defaults for the rest"
    assert set(re.findall(r"\$\{(\w+):\?", CPU_NODE.read_text())) == {"HEAD_ADDRESS"}


def test_every_service_is_a_redis_user_of_its_own_and_gets_no_other_password() -> None:
    for file, name in OURS:
        service = services(file)[name]
        urls = {key: value for key, value in service.get("environment", {}).items() if key.startswith("REDIS_URL")}
        users = {re.findall(r"^redis://(\w+)@", url)[0] for url in urls.values()}
        assert users <= set(ROLES)
        assert users == {"fetch": set(), "profile": set(), "node": set(OF_A_NODE), "ctl": {"gateway"}}.get(name, {name})
        assert set(service.get("secrets", [])) == users
        assert all(
            url.endswith(f"?password_file=/run/secrets/{re.findall('//(.*)@', url)[0]}") for url in urls.values()
        )
    assert set(services(HEAD)["redis"]["secrets"]) == {USERS_FILE, "reader"}


def test_the_secrets_command_makes_every_file_that_is_mounted(tmp_path: Path) -> None:
    make_secrets(tmp_path / "secrets", "cascade", SERVER)
    for file in FILES:
        declared = filled(yaml.safe_load(file.read_text())["secrets"], {"SECRETS": str(tmp_path / "secrets")})
        assert all(Path(each["file"]).is_file() for each in declared.values())
        assert {Path(each["file"]).name for each in declared.values()} == set(declared)
        used = {
            name for _, each in yaml.safe_load(file.read_text())["services"].items() for name in each.get("secrets", [])
        }
        assert used <= set(declared)
        assert "admin" not in declared


@pytest.mark.parametrize(("file", "name"), OURS, ids=lambda each: getattr(each, "stem", each))
def test_every_variable_is_a_setting(file: Path, name: str) -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields} | {SETTING, OWN_CATALOG}
    given = {each for each in services(file)[name].get("environment", {}) if each.startswith(PREFIX)}
    assert given <= known


def test_every_file_draws_with_the_same_cascade_where_none_is_named() -> None:
    told = {
        (service["environment"]["CASCADE_CASCADE"], service["environment"]["CASCADE_DEPLOYMENT"])
        for service in (services(file)[name] for file, name in OURS if name not in ("fetch", "profile"))
    }
    assert told == {("tiny", "cascade")}
    assert services(GPU_NODE)["fetch"]["entrypoint"][-1] == "tiny"


@pytest.mark.parametrize(("file", "name"), OURS, ids=lambda each: getattr(each, "stem", each))
def test_a_setting_reaches_every_container_that_reads_it(file: Path, name: str) -> None:
    fields = {PREFIX + field.upper() for field in Settings.model_fields.keys() - OF_THE_FILES}
    told = dict.fromkeys({*fields, OWN_CATALOG}, "told")
    read = {OWN_CATALOG} if name in ("fetch", "profile") else set(told)
    reached = services(file, DEMANDED | told)[name]["environment"]
    assert {setting for setting in told if reached.get(setting) == "told"} == read
    assert not told.keys() & services(file)[name].get("environment", {}).keys(), "empty would be a wrong value"


def test_a_setting_that_a_page_names_reaches_the_containers() -> None:
    named = {each for page in PAGES for each in re.findall(rf"{PREFIX}[A-Z_]+[A-Z]", page.read_text())}
    assert named, "the pages name some"
    told = DEMANDED | dict.fromkeys(named, "told")
    reached = {each for file, name in OURS for each in services(file, told)[name]["environment"]}
    assert named <= reached


@pytest.mark.parametrize(("file", "name"), OURS, ids=lambda each: getattr(each, "stem", each))
def test_a_catalogue_of_ones_own_is_mounted_where_it_is_read(file: Path, name: str) -> None:
    writes = name in ("fetch", "profile")
    for given, source in (({}, "catalog"), ({"CATALOG": "/srv/catalog"}, "/srv/catalog")):
        volumes = services(file, DEMANDED | given)[name]["volumes"]
        assert f"{source}:/catalog{'' if writes else ':ro'}" in volumes
    assert "catalog" in yaml.safe_load(file.read_text())["volumes"], "nothing where no folder is named"
    if name == "profile":
        assert started(services(file)[name])[3:] == ["--out", "/catalog/profiles"]


def test_redis_has_room_below_what_its_container_may_take() -> None:
    redis = services(HEAD)["redis"]
    limit = redis["command"][redis["command"].index("--maxmemory") + 1]
    assert gigabytes(redis["mem_limit"]) >= 1.5 * gigabytes(limit), "buffers and a rewrite come on top"
    assert redis["command"][redis["command"].index("--maxmemory-policy") + 1] == "noeviction"


def gigabytes(text: str) -> float:
    assert text.endswith("gb"), text
    return float(text[:-2])


def test_what_is_told_to_stop_has_time_to_hand_back() -> None:
    settings = Settings()
    assert settings.grace_s < STOP_WAIT_S, "a worker ends by itself before supervisor kills it"
    for file in (GPU_NODE, CPU_NODE):
        # First the group of workers, then the agent.
        assert seconds(services(file)["node"]["stop_grace_period"]) > 2 * STOP_WAIT_S
    for name in (*HEADS_SERVICES, "gateway"):
        assert settings.grace_s < seconds(services(HEAD)[name]["stop_grace_period"])


def test_a_deployment_survives_the_loss_of_power_and_a_demo_a_kill_of_redis() -> None:
    command = services(HEAD)["redis"]["command"]
    given = {name: command[command.index(name) + 1] for name in ("--appendonly", "--appendfsync")}
    assert given == {"--appendonly": "yes", "--appendfsync": "always"}
    assert Run(Path(), Settings(), Path()).durability == "everysec"


def test_the_cpu_node_is_the_gpu_node_but_for_the_gpu() -> None:
    gpu, cpu = services(GPU_NODE)["node"], services(CPU_NODE)["node"]
    differ = {name for name in gpu.keys() | cpu.keys() if gpu.get(name) != cpu.get(name)}
    assert differ == {"image", "build", "command", "environment", "deploy", "volumes"}
    ours, theirs = gpu["environment"], cpu["environment"]
    changed = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert changed == {"CASCADE_RESIDENT", "OMP_NUM_THREADS"}
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    assert gpu["volumes"] == ["models:/cascade/models/weights:ro", *cpu["volumes"]]


def test_the_gateway_asks_for_keys_which_may_change_while_it_runs() -> None:
    gateway = services(HEAD)["gateway"]
    keys = Path(gateway["command"][gateway["command"].index("--http-keys") + 1])
    assert keys.parent == Path(gateway["volumes"][-1]["target"]), "a mounted file would not change with the one outside"


def test_redis_answers_its_users_alone_and_keeps_to_what_the_file_says(tmp_path: Path) -> None:
    with redis_of_the_head(tmp_path) as (port, _):
        password = tmp_path / "secrets"
        until(lambda: answers(broker_as("admin", port, password / "admin")), "Redis answers")
        for user in USERS:
            assert broker_as(user, port, password / user).client.ping()
        for url in (
            f"redis://127.0.0.1:{port}",
            f"redis://worker:wrong@127.0.0.1:{port}",
            f"redis://:x@127.0.0.1:{port}",
        ):
            with pytest.raises(CascadeError, match=r"uthentication required|invalid username-password"):
                Broker(Settings(redis_url=url)).check()
        told = broker_as("admin", port, password / "admin").client.config_get("*")
        kept = {name: told[name] for name in ("appendonly", "appendfsync", "save", "maxmemory-policy")}
        assert kept == {"appendonly": "yes", "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction"}
        assert int(told["maxmemory"] or 0) == 2 * 2**30


def test_redis_is_healthy_while_it_answers(tmp_path: Path) -> None:
    with redis_of_the_head(tmp_path) as (port, places):
        command = healthcheck_here(services(HEAD)["redis"], {**places, "redis-cli": f"redis-cli -p {port}"})
        path = f"{Path(server_binaries()[0]).parent}{os.pathsep}{os.environ['PATH']}"
        if said_by(["sh", "-c", "command -v redis-cli"], env={"PATH": path}).returncode:
            pytest.skip("redis-cli is not installed")
        until(lambda: said_by(command, env={"PATH": path}).returncode == 0, "healthy", 30)
        (tmp_path / "secrets" / "reader").chmod(0o600)
        (tmp_path / "secrets" / "reader").write_text("wrong")
        assert said_by(command, env={"PATH": path}).returncode != 0, "a refusal is no answer"
    assert said_by(command, env={"PATH": path}).returncode != 0


def test_no_password_is_where_others_can_see_it() -> None:
    for file, name in ALL:
        service = services(file)[name]
        told = [*started(service), *environment_here(service, {}).values()]
        assert not [word for word in told if re.search(r"://[^@/]*:[^@/]*@", word)]
        assert not [key for key in service.get("environment", {}) if "PASSWORD" in key]


def test_every_container_starts_without_rights_that_it_does_not_need() -> None:
    for file, name in [*OURS, (HEAD, "redis")]:
        service = services(file)[name]
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"] == {"driver": "local"}, f"{name}: logs that are not rotated fill the disk"
    assert services(HEAD)["redis"]["user"] == "999:999"
