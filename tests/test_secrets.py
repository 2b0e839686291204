"""All secrets of a deployment: made once, by a command that needs no library, readable to whom they are meant for."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from deploy.acl import SHORTEST, USERS
from deploy.secrets import OF_A_NODE, USERS_FILE, deployment_of, make_keys
from deploy.supervision import ROOT
from shared.errors import SettingsError
from shared.keyring import read_keyring


def make(where: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """As on a host that has Python and nothing else: -S hides all libraries."""
    command = [sys.executable, "-S", "-m", "deploy.secrets", "--folder", str(where / "secrets")]
    command += ["--keys", str(where / "keys"), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_every_user_gets_a_password_of_its_own_and_redis_its_digest(tmp_path: Path) -> None:
    made = make(tmp_path, "--deployment", "d")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "secrets"
    assert {each.name for each in folder.iterdir()} == {*USERS, USERS_FILE}
    passwords = {user: (folder / user).read_text() for user in USERS}
    assert len(set(passwords.values())) == len(USERS)
    assert all(len(password) > 2 * SHORTEST for password in passwords.values())
    users = (folder / USERS_FILE).read_text()
    for user, password in passwords.items():
        assert f"user {user} on #{sha256(password.encode()).hexdigest()} " in users
        assert password not in users + made.stdout
    assert "{d}:" in users
    assert "cascade" not in users


def test_others_on_the_host_come_to_no_secret_and_containers_to_what_is_mounted(tmp_path: Path) -> None:
    make(tmp_path)
    folder = tmp_path / "secrets"
    assert mode(folder) == 0o700, "whoever cannot enter it reads no file in it"
    assert {each.name: mode(each) for each in folder.iterdir() if mode(each) != 0o444} == {"admin": 0o400}
    assert (mode(tmp_path / "keys"), mode(tmp_path / "keys" / "keys.toml")) == (0o755, 0o644)


def test_what_is_said_names_what_a_node_needs_and_the_key_that_opens_the_door(tmp_path: Path) -> None:
    said = make(tmp_path).stdout
    assert all(f"secrets/{name}" in said for name in OF_A_NODE)
    secret = said.split("shown this once: ")[1].split()[0]
    found = read_keyring(tmp_path / "keys" / "keys.toml").find(secret)
    assert found is not None
    name, key = found
    assert (name, key.admin) == ("admin", True)
    assert secret not in (tmp_path / "keys" / "keys.toml").read_text()


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = make(tmp_path)
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (2, "", 1)
    assert "is there already" in again.stderr
    shutil.move(tmp_path / "keys", tmp_path / "old")
    again = make(tmp_path)
    assert again.returncode == 2
    assert "secrets is there already" in again.stderr
    shutil.move(tmp_path / "old", tmp_path / "keys")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_new_passwords_leave_the_keys_of_the_door_as_they_are(tmp_path: Path) -> None:
    make(tmp_path)
    keys = (tmp_path / "keys" / "keys.toml").read_bytes()
    shutil.move(tmp_path / "secrets", tmp_path / "secrets.old")
    again = make(tmp_path)
    assert again.returncode == 0, again.stderr
    assert "kept" in again.stdout and "sk-" not in again.stdout
    assert (tmp_path / "keys" / "keys.toml").read_bytes() == keys
    for user in USERS:
        assert (tmp_path / "secrets" / user).read_text() != (tmp_path / "secrets.old" / user).read_text()


def test_a_folder_of_keys_without_keys_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    said = make(tmp_path)
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert "no keys.toml" in said.stderr and not (tmp_path / "secrets").exists()


@pytest.mark.parametrize(
    ("environment", "written", "deployment"),
    [
        ({}, None, "cascade"),
        ({}, "HEAD_ADDRESS=10.0.0.1\n# DEPLOYMENT=c\n", "cascade"),
        ({}, "DEPLOYMENT=b\n", "b"),
        ({}, 'DEPLOYMENT="b"\n', "b"),
        ({"DEPLOYMENT": "a"}, "DEPLOYMENT=b\n", "a"),
    ],
)
def test_the_users_are_for_the_deployment_that_compose_would_run(
    tmp_path: Path, environment: dict[str, str], written: str | None, deployment: str
) -> None:
    if written is not None:
        (tmp_path / ".env").write_text(written)
    assert deployment_of(environment, tmp_path / ".env") == deployment


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = make(tmp_path / "file")
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert "cannot write" in said.stderr


def test_a_keys_name_that_would_be_something_else_in_toml_is_refused(tmp_path: Path) -> None:
    for name in ("a.b", "a]", ""):
        with pytest.raises(SettingsError, match="may hold letters"):
            make_keys(tmp_path / "keys", name)
    assert not (tmp_path / "keys").exists()
