"""Real pictures to compare drawn ones with: taken from a folder or an archive that somebody downloaded."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from models.disk import check_room, copy_files
from shared.errors import ModelError

DATASETS: Final = Path(__file__).resolve().parent.parent / "datasets"
REFERENCES: Final = DATASETS / "reference"
PICTURES: Final = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, slots=True)
class Archive:
    """A published archive: its size in bytes, MD5 (the checksum by which its users know it) and licence."""

    url: str
    size: int
    md5: str
    licence: str


# The MD5 as several public loaders of the data set have it, the size as one report has it; not downloaded here.
COCO: Final = Archive(
    "http://images.cocodataset.org/zips/val2017.zip",
    815_585_330,
    "442b8da7639aecaf257c1dceb8ba8c80",
    "pictures under their owners' Flickr licences, captions CC BY 4.0",
)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures directly in a folder, by name."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES) if folder.is_dir() else []


def take_pictures(given: Path, into: Path = REFERENCES) -> Path:
    """Have the pictures of a folder, or of val2017.zip, in a folder below `into`, and return it.

    Raises ModelError that names the first broken one, before anything is kept; the archive's checksum is looked at.
    """
    if given.is_dir():
        files = pictures_in(given)
        if not files:
            raise ModelError(f"{given} holds no pictures ({', '.join(PICTURES)})")
        for path in files:
            check_picture(path)
        copy_files(given, into / given.name, [path.name for path in files])
        return into / given.name
    if not given.is_file():
        raise ModelError(f"there is no folder and no archive {given}")
    check_archive(given, COCO)
    return _unpacked(given, into)


def check_archive(path: Path, published: Archive) -> None:
    """Raise ModelError where the file is not the published archive."""
    if path.stat().st_size != published.size:
        raise ModelError(f"{path} has {path.stat().st_size:,} bytes, not the {published.size:,} of {published.url}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != published.md5:
        raise ModelError(f"{path}: MD5 {found}, not {published.md5} of {published.url}; download it again")


def check_picture(path: Path) -> None:
    """Raise ModelError where the file cannot be read as a picture, to its last line."""
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as wrong:
        raise ModelError(f"{path} is no picture, or a broken one: {wrong}") from wrong


def _unpacked(archive: Path, into: Path) -> Path:
    target, draft = into / archive.stem, into / f".{archive.stem}"
    try:
        with zipfile.ZipFile(archive) as packed:
            members = list(_pictures_of(packed))
            check_room(into, sum(member.file_size for member in members))
            draft.mkdir(parents=True, exist_ok=True)
            for member in members:
                member.filename = Path(member.filename).name  # all into one folder, and never out of it
                packed.extract(member, draft)
    except (zipfile.BadZipFile, OSError) as wrong:
        raise ModelError(f"{archive}: {wrong}") from wrong
    for path in pictures_in(draft):
        check_picture(path)
    shutil.rmtree(target, ignore_errors=True)
    draft.replace(target)
    return target


def _pictures_of(packed: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    for member in packed.infolist():
        if not member.is_dir() and Path(member.filename).suffix.lower() in PICTURES:
            yield member
