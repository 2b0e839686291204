"""Makes a container around a command: namespaces, a root of its own, mounts, a user; then becomes that command.

    python -m deploy.cluster.inside SPEC.json

The root is the image's files over this machine's own, and whatever is written goes into memory. The command is
process 1 of its namespace: what it started ends with it. This process stays outside, hands signals on to it, and ends
with its exit code. It knows nothing of the project, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Any, Final

NEW_MOUNTS, NEW_HOSTNAME, NEW_IPC, NEW_PIDS, NETWORK = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 32, 4096, 16384, 1 << 18
SET_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG
HANDED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run the container to its end."""
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    _die_with_parent()
    with open(spec["network"]) as network:
        _call("setns", network.fileno(), NETWORK)
    _call("unshare", NEW_MOUNTS | NEW_HOSTNAME | NEW_IPC | NEW_PIDS)
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_ON)  # until there is somebody to hand them on to
    child = os.fork()
    if child == 0:
        _become(spec)
    for number in HANDED_ON:
        signal.signal(number, lambda told, _: os.kill(child, told))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(spec: dict[str, Any]) -> None:
    try:
        socket.sethostname(spec["hostname"])
        _call("mount", b"none", b"/", None, RECURSIVE | PRIVATE, None)
        root = _root(Path(spec["box"]), spec["image"])
        for mount in spec["mounts"]:
            _bind(root, mount)
        (root / "etc/hosts").write_text(spec["hosts"])
        _open_way(root, spec["reachable"])
        if spec["read_only"]:
            _call("mount", None, bytes(root), None, REMOUNT | BIND | READ_ONLY, None)
        os.chroot(root)
        os.chdir(spec["workdir"])
        if spec["user"]:
            os.setgroups([])
            os.setgid(spec["user"])
            os.setuid(spec["user"])
        _die_with_parent()  # a change of the user takes it back
        for number in HANDED_ON:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
        os.execvpe(spec["command"][0], spec["command"], spec["environment"])
    except BaseException as wrong:  # noqa: BLE001  # in a child, nothing may get past this line
        sys.stderr.write(f"no container: {wrong!r}\n")
        sys.stderr.flush()
        os._exit(127)


def _root(box: Path, image: str) -> Path:
    """The image's files over this machine's, writable: in memory, and gone with the container."""
    _mount("tmpfs", "tmpfs", box)
    for name in ("work", "root"):
        (box / name).mkdir()
    # Copied, for two layers of an overlay must not lie in each other, and the image lies below this machine's root.
    shutil.copytree(image, box / "written", symlinks=True)
    root = box / "root"
    _mount("overlay", "overlay", root, f"lowerdir=/,upperdir={box}/written,workdir={box}/work")
    _mount("proc", "proc", root / "proc")
    for name in ("dev", "sys"):
        _call("mount", os.fsencode(f"/{name}"), bytes(root / name), None, BIND | RECURSIVE, None)
    _mount("tmpfs", "tmpfs", root / "run")
    return root


def _bind(root: Path, mount: dict[str, Any]) -> None:
    target = root / mount["target"].lstrip("/")
    if mount["kind"] == "tmpfs":
        target.mkdir(parents=True, exist_ok=True)
        _mount("tmpfs", "tmpfs", target, mount["source"] or "mode=1777")
        return
    source = Path(mount["source"])
    if stat.S_ISDIR(source.stat().st_mode):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _call("mount", bytes(source), bytes(target), None, BIND, None)
    if mount["read_only"]:
        _call("mount", None, bytes(target), None, REMOUNT | BIND | READ_ONLY, None)


def _open_way(root: Path, reachable: list[str]) -> None:
    """Let users other than root reach folders that lie below root's own home; in this container only."""
    for path in map(Path, reachable):
        for above in (path, *path.parents):
            inside = root / str(above).lstrip("/")
            if not inside.stat().st_mode & stat.S_IXOTH:
                inside.chmod(inside.stat().st_mode | stat.S_IROTH | stat.S_IXOTH)


def _mount(kind: str, source: str, target: Path, options: str = "") -> None:
    _call("mount", source.encode(), bytes(target), kind.encode(), 0, options.encode() or None)


def _die_with_parent() -> None:
    _call("prctl", SET_DEATH_SIGNAL, int(signal.SIGKILL))


def _call(name: str, *arguments: Any) -> None:
    """A call into the C library; raises OSError."""
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main())
