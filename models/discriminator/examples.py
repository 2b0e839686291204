"""Pictures to learn from: a folder of them as one array of squares, and which of them are held out.

A picture is broken before anything is trained, not in the middle: all are read first, and kept in one file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.bars import Say
from models.measures import Bools
from shared.errors import SettingsError

Squares = NDArray[np.uint8]  # (pictures, side, side, 3)
ENDINGS: Final = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp"))
# Of each ten: what is trained on, what decides when to stop and the temperature, and what the figures are measured on.
PARTS: Final = {"train": range(8), "held out": range(8, 9), "test": range(9, 10)}
LEAST: Final = 20


def files_in(folder: Path) -> list[Path]:
    """The pictures of a folder and of those below it, in order; raises SettingsError where there are too few."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if len(found) < LEAST:
        raise SettingsError(f"{folder}: {len(found)} pictures ({', '.join(sorted(ENDINGS))}); at least {LEAST} needed")
    return found


def squares(paths: Sequence[Path], side: int, keep: Path, say: Say) -> Squares:
    """All pictures as squares of that side, kept in a file named after `keep`; raises SettingsError."""
    keep = keep.with_name(f"{keep.stem}-{side}-{_mark(paths):08x}.npy")
    if keep.exists():
        kept: Squares = np.load(keep, mmap_mode="r", allow_pickle=False)
        return kept
    keep.parent.mkdir(parents=True, exist_ok=True)
    draft = keep.with_suffix(".draft.npy")
    made = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=(len(paths), side, side, 3))
    for number, path in enumerate(paths):
        made[number] = square(path, side)
        say("pictures read", number + 1, len(paths))
    made.flush()
    draft.replace(keep)
    read: Squares = np.load(keep, mmap_mode="r", allow_pickle=False)
    return read


def _mark(paths: Sequence[Path]) -> int:
    """Changes where a file is another, or was written anew."""
    known = [(str(path), status.st_size, status.st_mtime_ns) for path in paths for status in [path.stat()]]
    return zlib.crc32(repr(known).encode())


def square(path: Path, side: int = 0) -> Squares:
    """One picture, (side, side, 3), or as large as it is; raises SettingsError that names it where it is broken."""
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as wrong:
        raise SettingsError(f"{path}: no picture that can be read: {wrong}") from None
    sized = picture if not side or picture.size == (side, side) else picture.resize((side, side), _SMOOTH)
    return np.array(sized)  # a copy that torch may write to


_SMOOTH: Final = Image.Resampling.BILINEAR


def part_of(pictures: Squares, name: str) -> Squares:
    """The pictures of one part, by a hash of the picture itself: wherever it lies, it is always of the same part."""
    return np.asarray(pictures[parted(pictures, name)])


def parted(pictures: Iterable[Squares], name: str) -> Bools:
    """Which pictures are of that part."""
    return np.asarray([zlib.crc32(np.ascontiguousarray(picture).tobytes()) % 10 in PARTS[name] for picture in pictures])
