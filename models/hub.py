"""What the hub is asked for: the files of a repository at a revision, and their bytes.

Plain HTTP with ranges: the hub's own downloader starts a file anew after a kill, and some have five gigabytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get

from shared.errors import ModelError

TRIES: Final = 5  # of a connection that breaks; each goes on where the last one ended
_HUB_WRONG: Final = (httpx.HTTPError, OSError, HFValidationError)


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on the hub: its path there, size in bytes, and checksum.

    `sha256` is empty for a small file that git itself holds; then `blob`, git's SHA-1 of it, stands for it.
    """

    path: str
    size: int
    sha256: str
    blob: str

    @property
    def checksum(self) -> str:
        return self.sha256 or self.blob


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one revision."""

    source: str
    revision: str
    licence: str
    gated: bool
    files: Mapping[str, Remote]


def listing(source: str, revision: str) -> Listing:
    """The files of a repository at a revision, and leave to read them; raises ModelError.

    A gated one is asked for leave here, before anything is downloaded.
    """
    try:
        told = HfApi().model_info(source, revision=revision or None, files_metadata=True)
        if told.gated:
            HfApi().auth_check(source)
    except _HUB_WRONG as wrong:
        raise _said(wrong, source, revision) from wrong
    files = {
        each.rfilename: Remote(each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else "", each.blob_id or "")
        for each in told.siblings or ()
    }
    card = told.card_data
    licence = str(getattr(card, "license_name", None) or getattr(card, "license", None) or "")
    return Listing(source, told.sha or revision, licence, bool(told.gated), files)


def download(listed: Listing, remote: Remote, partial: Path) -> None:
    """Have the file's bytes in `partial`, the rest of them where some are there; raises ModelError.

    One with a wrong checksum is removed.
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    for left in reversed(range(TRIES)):
        before = size_of(partial)
        try:
            _append(listed, remote, partial)
            break
        except _HUB_WRONG as wrong:
            if isinstance(wrong, OSError) and wrong.errno is not None:
                raise ModelError(f"cannot write {partial}: {wrong.strerror}") from wrong
            if left == 0 or size_of(partial) == before:
                raise _broken_off(wrong, listed, remote, partial) from wrong
    found = checksum(partial, remote)
    if found != remote.checksum:
        partial.unlink()
        raise ModelError(
            f"{listed.source}/{remote.path}: checksum {found[:12]}..., not the hub's {remote.checksum[:12]}...; "
            "nothing of it was kept: fetch again"
        )


def _append(listed: Listing, remote: Remote, partial: Path) -> None:
    path = f"{listed.source}/resolve/{quote(listed.revision, safe='')}/{quote(remote.path)}"
    begun = size_of(partial)
    if begun > remote.size:
        partial.unlink()
        begun = 0
    with partial.open("r+b" if begun else "wb", buffering=0) as file:
        file.seek(begun)
        http_get(
            f"{constants.ENDPOINT}/{path}",
            file,
            resume_size=begun,
            headers=_headers(),
            expected_size=remote.size,
            displayed_filename=remote.path,
        )
        os.fsync(file.fileno())


def _headers() -> dict[str, str]:
    # As it is: a compressed answer has another length, and no range of it fits what is here.
    headers = {"accept-encoding": "identity"}
    token = get_token()
    return headers | ({"authorization": f"Bearer {token}"} if token else {})


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def checksum(path: Path, remote: Remote) -> str:
    """Of a file here, the kind of checksum that the hub has of it."""
    with path.open("rb") as file:
        if remote.sha256:
            return hashlib.file_digest(file, "sha256").hexdigest()
        content = file.read()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _broken_off(wrong: Exception, listed: Listing, remote: Remote, partial: Path) -> ModelError:
    if isinstance(wrong, HfHubHTTPError):
        return _said(wrong, listed.source, listed.revision)
    return ModelError(
        f"{listed.source}/{remote.path}: broken off after {size_of(partial):,} of {remote.size:,} bytes "
        f"({_line(wrong)}); run the same command again, it goes on from there"
    )


def _said(wrong: Exception, source: str, revision: str) -> ModelError:
    """One line for what the hub answered, and what to do."""
    page = f"{constants.ENDPOINT}/{source}"
    if isinstance(wrong, GatedRepoError):
        how = "the token in HF_TOKEN has no leave" if get_token() else "there is no token: set HF_TOKEN"
        return ModelError(f"{source} is gated, and {how}; accept its licence at {page} with that account")
    if isinstance(wrong, RevisionNotFoundError):
        return ModelError(f"{source} has no revision {revision}; mend the row in the catalogue, see {page}/commits")
    if isinstance(wrong, RepositoryNotFoundError):
        return ModelError(f"the hub has no model {source!r} ({page}); a private one needs HF_TOKEN")
    if isinstance(wrong, HFValidationError):
        return ModelError(f"{source!r} is neither a folder beside the catalogue nor a hub id")
    if isinstance(wrong, OfflineModeIsEnabled):
        return ModelError("HF_HUB_OFFLINE is set: unset it, or name a folder downloaded by hand with --from")
    return ModelError(
        f"{source}: the hub at {constants.ENDPOINT} does not answer as it should ({_line(wrong)}); try again, or name "
        "a folder downloaded by hand with --from"
    )


def _line(wrong: Exception) -> str:
    return (str(wrong).strip() or type(wrong).__name__).split("\n")[0]
