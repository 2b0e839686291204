"""What the operator's page says of the compose files holds in a new shell: settings, new passwords, a further key."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.acl import USERS
from deploy.secrets import make_keys
from deploy.supervision import ROOT
from shared.keyring import read_keyring
from tests.composing import CPU_NODE, GPU_NODE, HEAD, said_by
from tests.operating import PAGES, Shell, block, blocks
from tests.servers import folder
from tests.test_compose_schema import CLIENT, needs_client

SOMEBODY = 12345  # no user of this machine, and not the images'
PAGE = ROOT / "deploy" / "README.md"


def checkout(where: Path, *names: str) -> Path:
    """A checkout with the compose files, in which these blocks of the page were run."""
    shell = Shell(where, {})
    for file in (HEAD, GPU_NODE, CPU_NODE):
        (where / file.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(file, where / file.relative_to(ROOT))
    for name in names:
        shell.run({"settings": block("settings"), "node-settings": block("node-settings")}[name])
    return where


def in_a_new_shell(where: Path, *options: str) -> dict[str, Any]:
    """What the client makes of a command there, with no variable of ours set."""
    assert CLIENT is not None
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    said = said_by([*CLIENT, *options, "config"], cwd=where, env=kept)
    assert said.returncode == 0, said.stderr
    return dict(yaml.safe_load(said.stdout)["services"])


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service["environment"].items() if value is not None}


@needs_client
def test_a_new_shell_knows_what_the_page_had_written(tmp_path: Path) -> None:
    head = checkout(tmp_path / "head", "settings")
    with (head / ".env").open("a") as file:
        file.write("CASCADE=sdxs\nDEPLOYMENT=d\nCASCADE_DWELL_S=7\n")
    made = in_a_new_shell(head, "--profile", "observe", "--profile", "people")
    assert "prometheus" in made
    assert str(made["redis"]["ports"]).count("10.0.0.1"), "the address is known"
    for name in ("control", "keeper", "gateway", "ctl"):
        told = environment(made[name])
        assert (told["CASCADE_CASCADE"], told["CASCADE_DEPLOYMENT"], told["CASCADE_DWELL_S"]) == ("sdxs", "d", "7")


@needs_client
def test_a_node_with_the_heads_settings_serves_the_same_cascade(tmp_path: Path) -> None:
    head = checkout(tmp_path / "head", "settings")
    with (head / ".env").open("a") as file:
        file.write("CASCADE=sdxs\nDEPLOYMENT=d\n")
    node = checkout(tmp_path / "node")
    shutil.copy(head / ".env", node)  # as the page copies it
    Shell(tmp_path / "s", {}).run(f"cd {node}\n{block('node-settings')}")
    (told,) = [environment(each) for name, each in in_a_new_shell(node).items() if name == "node"]
    served = environment(in_a_new_shell(head)["control"])
    for name in ("CASCADE_CASCADE", "CASCADE_DEPLOYMENT"):
        assert told[name] == served[name]
    assert (told["CASCADE_NODE"], told["CASCADE_SLOTS"]) == ("gpu-1", "2")
    assert "@10.0.0.1:" in told["REDIS_URL"]


def test_each_checkout_of_a_node_is_a_project_of_its_own(tmp_path: Path) -> None:
    """Else both are `deploy`, after the folder of the file, and the second node of a host replaces the first."""
    written = dict(line.split("=") for line in (checkout(tmp_path / "n", "node-settings") / ".env").read_text().split())
    assert written["COMPOSE_PROJECT_NAME"] == written["NODE_NAME"]
    assert written["COMPOSE_FILE"] == str(GPU_NODE.relative_to(ROOT))


def test_the_commands_of_the_page_need_no_variable_of_the_shell_before() -> None:
    for each in blocks(PAGE):
        if "docker compose" in each.text:
            assert not re.search(r"export |HEAD_ADDRESS=|CASCADE=|compose.* -f ", each.text), each.text


def test_passwords_are_changed_as_the_page_says(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "s", {})
    shell.run(block("secrets"))
    keys = (shell.folder / "keys" / "keys.toml").read_bytes()
    before = {user: (shell.folder / "secrets" / user).read_text() for user in USERS}
    assert "sk-" not in shell.run(block("rotate"))
    assert (shell.folder / "keys" / "keys.toml").read_bytes() == keys
    assert all((shell.folder / "secrets" / user).read_text() != old for user, old in before.items())


def test_the_backend_that_sleeps_is_named_as_the_compose_files_read_it() -> None:
    for file in (GPU_NODE, CPU_NODE):
        assert "CASCADE_BACKEND: ${BACKEND:-" in file.read_text()
    assert "CASCADE_BACKEND=" not in PAGE.read_text() and "BACKEND=sleeping" in PAGE.read_text()
    assert {line for line in block("settings").splitlines() if line.startswith("CASCADE=")} == {"CASCADE=tiny"}, (
        "the first picture is of a cascade whose every weight is at hand"
    )


def further_keys() -> list[str]:
    """The command that makes a further key, as the page and the compose file print it."""
    printed = [each.text for page in PAGES for each in blocks(page)] + [HEAD.read_text().replace("\n  #", "\n")]
    joined = [re.sub(r"\\\n\s*", "", text) for text in printed]
    return [found for text in joined for found in re.findall(r"docker compose run .*key add NAME", text)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become the operator's user")
@pytest.mark.parametrize("command", further_keys())
def test_an_operator_who_is_not_root_adds_a_key(command: str) -> None:
    """As the container runs it: without any capability, under the user that the command names."""
    with folder() as where:
        where.chmod(0o755)
        make_keys(where / "keys", "admin")
        for path in (where / "keys", where / "keys" / "keys.toml"):
            os.chown(path, SOMEBODY, SOMEBODY)
        options, _, words = command.partition(" ctl ")
        named = re.findall(r'--user ("[^"]*"|\S+)', options)[0]
        asked = said_by(
            ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups", "sh", "-c", f"echo {named}"]
        )
        user = asked.stdout.strip().split(":")[0]
        said = contained(0 if user == "root" else int(user), words.replace("/keys/", f"{where}/keys/"))
        assert said.returncode == 0, said.stderr
        assert {"admin", "NAME"} <= set(read_keyring(where / "keys" / "keys.toml").keys)
        assert (where / "keys" / "keys.toml").stat().st_mode & 0o004, "the gateway's user reads it"


def test_both_places_say_how_a_key_is_added() -> None:
    assert len(further_keys()) == 2


# Loaded as root, for this Python may lie where nobody else may look; then without rights as in a container.
CONTAINED = """
import os, sys
from services.ctl.__main__ import main
from shared.process import guarded
if user := int(sys.argv.pop(1)):
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
guarded(main)
"""


def contained(user: int, words: str) -> subprocess.CompletedProcess[str]:
    """`ctl words` as a user, root too, without a capability."""
    without = [] if user else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    return said_by([*without, sys.executable, "-c", CONTAINED, str(user), *shlex.split(words)], cwd=ROOT)
