"""A compose file's services on one host: `up`, `restart`, `down`, as the command of that name does it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploy.cluster.composefile import Mount, Service, read_services
from deploy.cluster.containers import Container, Place
from deploy.cluster.image import image_of, number_of
from deploy.cluster.network import Host
from shared.errors import CascadeError, SettingsError

PATIENCE_S: Final = 120.0
LOOK_S: Final = 0.05


class Project:
    """The containers of one host. `folder`: for images, volumes and logs.

    `further`: environment of every container beyond what the file says, such as a backend that sleeps.
    """

    def __init__(
        self,
        host: Host,
        file: Path,
        variables: Mapping[str, str],
        folder: Path,
        *,
        names: Mapping[str, str] | None = None,
        further: Mapping[str, str] | None = None,
        profiles: Sequence[str] = (),
    ) -> None:
        self.host = host
        self.folder = folder / host.name
        self._file = file
        self._services = read_services(file, variables, ["*"])
        services = read_services(file, variables, profiles)
        self.order = _in_order(services)
        self._names = names if names is not None else dict.fromkeys(services, host.address)
        self._further = further or {}
        self.containers = {name: self._made(services[name]) for name in self.order}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    def __getitem__(self, name: str) -> Container:
        return self.containers[name]

    def up(self) -> None:
        """Start all services, each when what it depends on is as it asks; raises CascadeError where one never is."""
        for name in self.order:
            container = self.containers[name]
            if not container.running:
                self._await(container)
                container.start()

    def restart(self, name: str) -> float:
        """Stop a service and start it again; returns the seconds it took to stop."""
        took_s = self.containers[name].stop()
        self.containers[name].start()
        return took_s

    def run(self, name: str, words: Sequence[str], patience_s: float = PATIENCE_S) -> tuple[int, str]:
        """`run --rm NAME words`: a service once, with another command; its exit code and what it said."""
        service = replace(self._services[name], command=tuple(words), restarts=False, health=None)
        container = self._made(replace(service, name=f"{name}-run"))
        container.log.unlink(missing_ok=True)
        container.start()
        try:
            _until(lambda: container.exit_code is not None, container, patience_s)
        finally:
            container.stop()
        assert container.exit_code is not None
        return container.exit_code, container.log.read_text(errors="replace").strip()

    def down(self) -> None:
        """Stop all services, those that depend on others first."""
        left = list(reversed(self.order))
        while left:
            needed = {need for name in left for need in self.containers[name].service.depends_on}
            now = [name for name in left if name not in needed]
            with ThreadPoolExecutor(len(now)) as pool:
                list(pool.map(lambda name: self.containers[name].stop(), now))
            left = [name for name in left if name not in now]

    def wait_healthy(self, names: Iterable[str] = (), patience_s: float = PATIENCE_S) -> None:
        """Wait until these services, or all, are healthy or, where they have no check, run; raises CascadeError."""
        for name in names or self.order:
            container = self.containers[name]
            good = "healthy" if container.service.health else "none"
            _until(lambda c=container, g=good: c.running and c.health == g, container, patience_s)

    def _await(self, container: Container) -> None:
        for need, condition in container.service.depends_on.items():
            if need not in self.containers:  # of a profile that is not asked for
                continue
            needed = self.containers[need]
            if condition == "service_completed_successfully":
                _until(lambda n=needed: n.exit_code == 0, needed, PATIENCE_S)
            elif condition == "service_healthy":
                _until(lambda n=needed: n.health == "healthy", needed, PATIENCE_S)

    def _made(self, service: Service) -> Container:
        root = self.folder / "images" / service.name
        root.mkdir(parents=True, exist_ok=True)
        image = image_of(service.dockerfile, service.image, root)
        service = replace(service, environment={**service.environment, **self._further})
        mounts = [self._placed(mount, number_of(service.user or image.user)) for mount in service.mounts]
        return Container(service, image, Place(self.host, self.folder, mounts, self._names))

    def _placed(self, mount: Mount, user: int) -> Mount:
        """The mount with a source on this machine. A volume belongs to the image's user, as the image sees to."""
        if mount.kind == "tmpfs":
            return mount
        if mount.kind == "volume":
            made = self.folder / "volumes" / mount.source
            made.mkdir(parents=True, exist_ok=True)
            os.chown(made, user, user)
            return replace(mount, source=str(made))
        found = self._file.parent / mount.source
        if not found.exists():
            raise SettingsError(f"{self._file.name} mounts {mount.source}, which is not there")
        return replace(mount, source=str(found.resolve()))


def _in_order(services: Mapping[str, Service]) -> list[str]:
    """Each after what it depends on."""
    found: list[str] = []

    def visit(name: str) -> None:
        if name in services and name not in found:
            for need in services[name].depends_on:
                visit(need)
            found.append(name)

    for name in services:
        visit(name)
    return found


def _until(condition: object, container: Container, patience_s: float) -> None:
    assert callable(condition)
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            raise CascadeError(
                f"{container.service.name} on {container.host.name} is not as awaited ({container.health}): "
                f"{container.said or last_line(container.log)}"
            )
        time.sleep(LOOK_S)


def last_line(path: Path) -> str:
    """The last thing a log says."""
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "it said nothing"
