"""Fills the access lists of deploy/redis/ in: one user per role, its password as a digest.

    REDIS_WORKER_PASSWORD_FILE=/run/secrets/worker ... python -m deploy.acl --deployment cascade > users.acl
    redis-server --aclfile users.acl ...

It needs no library: a host that has Docker and Python only must be able to run it.
A role's password is taken from REDIS_<ROLE>_PASSWORD, or from the file that REDIS_<ROLE>_PASSWORD_FILE names.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from string import Template
from typing import Final

from shared.errors import CascadeError, SettingsError

TEMPLATES: Final = Path(__file__).parent / "redis"
ROLES: Final = ("publisher", "worker", "control", "agent", "keeper", "reader", "gateway")
USERS: Final = ("admin", *ROLES)
KEY_PERMISSIONS_SINCE: Final = (7, 0)
# Redis keeps a plain digest, which a fast machine can try words against: no word, and no short one.
SHORTEST: Final = 16


def passwords(environment: Mapping[str, str]) -> dict[str, str]:
    """Each user's password; raises SettingsError for one that is missing or short."""
    found: dict[str, str] = {}
    for user in USERS:
        name = f"REDIS_{user.upper()}_PASSWORD"
        file = environment.get(f"{name}_FILE")
        try:
            found[user] = Path(file).read_text().strip() if file else environment.get(name, "")
        except OSError as wrong:
            raise SettingsError(f"{name}_FILE: {wrong}") from None
        if len(found[user]) < SHORTEST:
            raise SettingsError(f"{name}: give the {user} a password of {SHORTEST} characters or more")
    return found


def access_list(deployment: str, known: Mapping[str, str], version: tuple[int, ...]) -> str:
    """The text of an ACL file for a server of that version. `known`: user -> password."""
    name = "users-7.acl" if version >= KEY_PERMISSIONS_SINCE else "users-6.2.acl"
    digests = {user: sha256(password.encode()).hexdigest() for user, password in known.items()}
    return filled((TEMPLATES / name).read_text(), {"deployment": deployment, **digests})


def filled(template: str, values: Mapping[str, str]) -> str:
    """A template's users, one a line, with `define`d words and values in place.

    A line that begins with a space goes on with the one before it.
    """
    known, users = dict(values), list[str]()
    for line in _joined(template):
        verb, rest = line.split(maxsplit=1)
        if verb == "define":
            word, meaning = rest.split(maxsplit=1)
            known[word] = Template(meaning).substitute(known)
        else:
            users.append(Template(line).substitute(known))
    return "\n".join(users) + "\n"


def _joined(template: str) -> list[str]:
    lines: list[str] = []
    for line in template.splitlines():
        if line.startswith(" "):
            lines[-1] += " " + line.strip()
        elif line.strip() and not line.startswith("#"):
            lines.append(line.strip())
    return lines


def plainly(main: Callable[[], int]) -> None:
    """Run a command; what the user can mend becomes one line and exit code 2. As `guarded`, but without a library."""
    try:
        sys.exit(main())
    except CascadeError as wrong:
        sys.stderr.write(f"{wrong}\n")
        sys.exit(2)


def main() -> int:
    """Print the ACL file of a deployment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployment", default="cascade", help="name in braces before every key (default: cascade)")
    parser.add_argument("--server", default="7.0", help="version of the server, such as 6.2 (default: 7.0)")
    given = parser.parse_args()
    try:
        version = tuple(int(part) for part in given.server.split("."))
    except ValueError:
        raise SettingsError(f"server: {given.server!r} is no version") from None
    sys.stdout.write(access_list(given.deployment, passwords(os.environ), version))
    return 0


if __name__ == "__main__":
    plainly(main)
