"""Room on the disk, asked for before the first byte, and copies that are there whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.errors import ModelError

GIB: Final = 2**30
SPARE: Final = 2**28  # bytes of the disk that are left free


def check_room(folder: Path, wanted: int) -> None:
    """Raise ModelError where the disk of the folder, which need not be there yet, cannot hold so many bytes more."""
    disk = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(disk).free
    if wanted and wanted + SPARE > free:
        raise ModelError(
            f"no room in {disk}: {wanted / GIB:.2f} GiB are still to come, {free / GIB:.2f} GiB are free, of which "
            f"{SPARE / GIB:.2f} GiB are left alone"
        )


def copy_files(source: Path, target: Path, paths: Sequence[str]) -> None:
    """Copy files of one folder into another; raises ModelError, also where there is no room for them."""
    if source.resolve() == target.resolve():
        return
    try:
        check_room(target, sum((source / path).stat().st_size for path in paths))
        for path in paths:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            draft = target / f"{path}.copy"
            shutil.copyfile(source / path, draft)
            draft.replace(target / path)
    except OSError as wrong:
        raise ModelError(f"cannot copy {source} to {target}: {wrong.strerror or wrong}") from wrong
