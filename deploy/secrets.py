"""Makes all secrets of a deployment, once, on the head: `python3 -m deploy.secrets`. It needs no library.

    secrets/            0700, so that on this host nobody but its owner comes to what is in it
      control ...       0444: one random password a role; a container's user, who is nobody here, reads its mounted file
      admin             0400: for you alone, no container gets it
      users.acl         0444: all Redis users, with digests of these passwords
    keys/keys.toml      digest of the first key of the door over HTTP, which is said once

A GPU node needs two of them, worker and agent. For new passwords move secrets/ away and call it again: keys/ is kept.
The users are for the deployment that DEPLOYMENT names, in the environment or in .env, as for the compose files.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from deploy.acl import USERS, access_list, plainly
from shared.errors import SettingsError

USERS_FILE: Final = "users.acl"
OF_A_NODE: Final = ("worker", "agent")
SERVER: Final = (7, 2)  # of docker-compose.yml
RANDOM_BYTES: Final = 32
KEY_PREFIX: Final = "sk-"
VARIABLES: Final = Path(".env")  # of the compose files


def make_secrets(folder: Path, deployment: str, version: tuple[int, ...]) -> None:
    """Make the folder with a password for each user, and the users; raises SettingsError where there is one."""
    passwords = {user: secrets.token_urlsafe(RANDOM_BYTES) for user in USERS}
    _refuse_old(folder, "Redis and all nodes know its passwords; move it away and restart them all to have new ones")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")  # whole or not at all: a half one would be refused
    draft.mkdir(mode=0o700, parents=True)
    for name, text in {**passwords, USERS_FILE: access_list(deployment, passwords, version)}.items():
        file = draft / name
        file.write_text(text)
        file.chmod(0o400 if name == "admin" else 0o444)
    draft.rename(folder)


def deployment_of(environment: Mapping[str, str], file: Path) -> str:
    """The deployment that the compose files would run with these variables and this .env."""
    lines = file.read_text().splitlines() if file.exists() else []
    written = dict(line.strip().split("=", 1) for line in lines if "=" in line)
    return environment.get("DEPLOYMENT") or written.get("DEPLOYMENT", "").strip("\"'") or "cascade"


def make_keys(folder: Path, name: str) -> str:
    """Make the folder of the door's keys with one that may steer; returns its secret. Raises SettingsError."""
    _refuse_old(folder, "add a key to it with services.ctl key add")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise SettingsError(f"name: {name!r} may hold letters, digits, - and _ only")
    secret = KEY_PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    folder.mkdir(parents=True)
    folder.chmod(0o755)  # the gateway's user looks into it, and there are only digests
    file = folder / "keys.toml"
    file.write_text(f'[keys.{name}]\nsha256 = "{sha256(secret.encode()).hexdigest()}"\nadmin = true\n')
    file.chmod(0o644)
    return secret


def _refuse_old(folder: Path, advice: str) -> None:
    if folder.exists():
        raise SettingsError(f"{folder} is there already: {advice}")


def _advice(given: argparse.Namespace, secret: str) -> Mapping[str, str]:
    """`secret`: of a key that was made; empty where keys were there."""
    node = " ".join(str(given.folder / name) for name in OF_A_NODE)
    return {
        f"passwords and Redis users of the deployment {given.deployment}": str(given.folder),
        "what each GPU node needs": f"{node} (in a folder of mode 0700, the files 0444)",
        **({"first key of the door, shown this once": secret} if secret else {"keys of the door, kept": given.keys}),
    }


def main() -> int:
    """Make the secrets and say what they are for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("secrets"), help="where they go (default: secrets)")
    parser.add_argument("--keys", type=Path, default=Path("keys"), help="where the door's keys go (default: keys)")
    parser.add_argument("--name", default="admin", help="name of the door's first key (default: admin)")
    parser.add_argument("--deployment", help="name in braces before every key (default: DEPLOYMENT, or cascade)")
    given = parser.parse_args()
    try:
        given.deployment = given.deployment or deployment_of(os.environ, VARIABLES)
        kept = (given.keys / "keys.toml").exists()
        if not kept:
            _refuse_old(given.keys, "it holds no keys.toml; move it away, or name another with --keys")
        make_secrets(given.folder, given.deployment, SERVER)
        secret = "" if kept else make_keys(given.keys, given.name)
    except OSError as wrong:
        raise SettingsError(f"cannot write: {wrong}") from None
    for what, where in _advice(given, secret).items():
        sys.stdout.write(f"{what}: {where}\n")
    return 0


if __name__ == "__main__":
    plainly(main)
