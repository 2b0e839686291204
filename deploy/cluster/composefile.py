"""What a compose file says, with its variables filled in, in the terms of `containers.py`.

Only what our files use is understood; a key that is not is an error, so that nothing is silently left untried.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from shared.errors import SettingsError

Variables = Mapping[str, str]
_VARIABLE: Final = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:?[-?+])((?:[^{}]|\{[^{}]*\})*))?\})")
_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
READ: Final = """build command configs depends_on entrypoint environment extends healthcheck hostname image ports
 profiles read_only restart secrets stop_grace_period tmpfs user volumes working_dir"""
# What needs a container engine to be true is passed over here. Ports: a host's containers share its network.
NOT_TRIED: Final = """cap_drop cpus deploy devices extra_hosts gpus group_add ipc labels logging mem_limit
 mem_reservation memswap_limit networks pids_limit pull_policy runtime security_opt shm_size sysctls ulimits"""


@dataclass(frozen=True, slots=True)
class Mount:
    """Something of the host at a path of the container. `source` of a volume is its name, of a tmpfs its options."""

    kind: Literal["bind", "volume", "tmpfs"]
    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """A command whose exit code tells whether the container is healthy, and when it is asked."""

    command: tuple[str, ...]
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Service:
    """One service. `depends_on`: its condition by service. `command`, `entrypoint`: None for the image's own."""

    name: str
    image: str
    dockerfile: Path | None
    command: tuple[str, ...] | None
    entrypoint: tuple[str, ...] | None
    environment: Variables
    mounts: tuple[Mount, ...]
    depends_on: Variables = field(default_factory=dict)
    restarts: bool = False
    grace_s: float = 10.0
    health: Health | None = None
    user: str = ""
    workdir: str = ""
    hostname: str = ""
    read_only: bool = False


def read_services(file: Path, variables: Variables, profiles: Sequence[str] = ()) -> dict[str, Service]:
    """The services of a compose file that these profiles start (`*`: all); raises SettingsError."""
    raw: dict[str, Any] = filled_in(yaml.safe_load(file.read_text()), variables)
    wanted = set(profiles)
    kept = {
        name: about
        for name, about in raw["services"].items()
        if not about.get("profiles") or wanted & {"*", *about["profiles"]}
    }
    return {name: _service(name, about, raw, file, variables) for name, about in kept.items()}


def _extended(about: dict[str, Any], file: Path, variables: Variables) -> tuple[dict[str, Any], Path]:
    """A service with what it extends below it, and the file whose folder its build starts from."""
    if "extends" not in about:
        return about, file
    other = file.parent / about["extends"]["file"]
    base = filled_in(yaml.safe_load(other.read_text()), variables)["services"][about["extends"]["service"]]
    environment = {
        **_environment(base.get("environment"), variables),
        **_environment(about.get("environment"), variables),
    }
    return {**base, **about, "environment": environment}, file if "build" in about else other


def filled_in(value: Any, variables: Variables) -> Any:
    """The value with `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${NAME:+value}` replaced, `$$` by `$`."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _filled(found, variables), value)
    if isinstance(value, list):
        return [filled_in(each, variables) for each in value]
    if isinstance(value, dict):
        return {name: filled_in(each, variables) for name, each in value.items()}
    return value


def _filled(found: re.Match[str], variables: Variables) -> str:
    dollar, bare, name, how, rest = found.groups()
    if dollar:
        return "$"
    given = variables.get(bare or name)
    if how is None:
        return given or ""
    there = bool(given) if how.startswith(":") else given is not None
    if how.endswith("+"):
        return str(filled_in(rest, variables)) if there else ""
    if there:
        return given or ""
    if how.endswith("?"):
        raise SettingsError(f"{name}: {rest or 'must be set'}")
    return str(filled_in(rest, variables))


def _service(name: str, said: dict[str, Any], raw: dict[str, Any], file: Path, variables: Variables) -> Service:
    about, built_by = _extended(said, file, variables)
    if unknown := about.keys() - {*READ.split(), *NOT_TRIED.split()}:
        raise SettingsError(f"{file}: {name}: {min(unknown)} is not understood here: read it in deploy/cluster")
    build = about.get("build")
    context = built_by.parent / (build["context"] if isinstance(build, dict) else build or ".")
    dockerfile = context / (build.get("dockerfile", "Dockerfile") if isinstance(build, dict) else "Dockerfile")
    return Service(
        name=name,
        image=about.get("image", ""),
        dockerfile=dockerfile.resolve() if build else None,
        command=words(about["command"]) if about.get("command") is not None else None,
        entrypoint=words(about["entrypoint"]) if about.get("entrypoint") is not None else None,
        environment=_environment(about.get("environment"), variables),
        mounts=tuple(_mounts(about, raw)),
        depends_on=_depends(about.get("depends_on")),
        restarts=about.get("restart", "no") in ("always", "unless-stopped"),
        grace_s=seconds(about.get("stop_grace_period", "10s")),
        health=_health(about.get("healthcheck")),
        user=str(about.get("user", "")),
        workdir=about.get("working_dir", ""),
        hostname=about.get("hostname", ""),
        read_only=bool(about.get("read_only")),
    )


def words(command: str | Sequence[str]) -> tuple[str, ...]:
    """A command as compose and Dockerfiles write it: a list, or a line for the shell."""
    return ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(map(str, command))


def seconds(text: str) -> float:
    """Seconds of `1m30s`, `20s` or `500ms`; raises SettingsError."""
    found = _DURATION.fullmatch(str(text))
    if not text or found is None:
        raise SettingsError(f"{text!r} is no duration such as 20s or 1m30s")
    hours, minutes, seconds_, milliseconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds_ + milliseconds / 1000


def _environment(given: Mapping[str, Any] | Sequence[str] | None, variables: Variables) -> dict[str, str]:
    """A name without a value has that of the variable, and is not set where there is none."""
    if not isinstance(given, Mapping):
        given = {name: value if there else None for name, there, value in (each.partition("=") for each in given or ())}
    named = {name: variables.get(name) if value is None else _text(value) for name, value in given.items()}
    return {name: value for name, value in named.items() if value is not None}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _depends(given: Mapping[str, Any] | Sequence[str] | None) -> dict[str, str]:
    if isinstance(given, Mapping):
        return {name: about.get("condition", "service_started") for name, about in given.items()}
    return dict.fromkeys(given or (), "service_started")


def _mounts(about: dict[str, Any], raw: dict[str, Any]) -> list[Mount]:
    found = [_mount(each) for each in about.get("volumes", ())]
    for each in about.get("tmpfs", ()):
        target, _, options = each.partition(":")
        found.append(Mount("tmpfs", options, target))
    for kind, folder in (("secrets", "/run/secrets/"), ("configs", "/")):
        for each in about.get(kind, ()):
            name = each if isinstance(each, str) else each["source"]
            target = name if isinstance(each, str) else each.get("target", name)
            path = target if target.startswith("/") else folder + target
            found.append(Mount("bind", raw[kind][name]["file"], path, read_only=True))
    return found


def _mount(given: str | dict[str, Any]) -> Mount:
    if isinstance(given, dict):
        return Mount(given["type"], given.get("source", ""), given["target"], bool(given.get("read_only")))
    source, target, *how = given.split(":")
    kind: Literal["bind", "volume"] = "bind" if source.startswith((".", "/", "~")) else "volume"
    return Mount(kind, source, target, "ro" in ",".join(how).split(","))


def _health(given: dict[str, Any] | None) -> Health | None:
    if given is None or given.get("disable"):
        return None
    test = given["test"]
    command = words(test) if isinstance(test, str) else tuple(map(str, test))
    if command[0] == "NONE":
        return None
    if command[0] == "CMD-SHELL":
        command = ("/bin/sh", "-c", command[1])
    elif command[0] == "CMD":
        command = command[1:]
    times = {name: seconds(given[name]) for name in ("interval", "timeout", "start_period") if name in given}
    return Health(command, retries=int(given.get("retries", 3)), **{f"{name}_s": s for name, s in times.items()})
