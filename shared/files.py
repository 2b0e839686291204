"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name and rename; raises OSError that names the file.

    A reader, or a full disk, never meets half a file under its final name.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """The same for what is no text; the new file is open to whom the old one was."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists():
            draft.touch(0o600)
        draft.write_bytes(content)
        if path.exists():
            _open_as(path.stat(), draft)
        draft.replace(path)
    except OSError as wrong:
        raise OSError(wrong.errno, wrong.strerror, str(path)) from None
    finally:
        draft.unlink(missing_ok=True)


def _open_as(old: os.stat_result, draft: Path) -> None:
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):  # only root gives files away
            os.chown(draft, old.st_uid, old.st_gid)
    draft.chmod(stat.S_IMODE(old.st_mode))
