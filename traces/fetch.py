"""Gets the published traces, prompts and scores: `python -m traces.fetch [--list] [NAME...]`.

Each file is taken from the folder that CASCADE_DATA names, if it is there, or else from the artifact's repository
at a pinned commit; it is kept under traces/published/ if its checksum is right. What is there already is left
alone, so that a fetch which was interrupted goes on. `--from` names another place of the repository's files, such
as file:///home/me/DiffServe/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from traces.published import DATASETS, SOURCE, known, stand_in, verify
from traces.read import PUBLISHED_FOLDER, TraceError, data_folders
from traces.write import write

PATIENCE_S: Final = 30.0
LARGEST: Final = 10_000_000  # bytes; the largest published file has under a million


class OutOfReach(TraceError):
    """The server cannot be reached at all; its other files need not be tried."""


def at_hand(name: str, into: Path = PUBLISHED_FOLDER) -> str | None:
    """Have the file in the folder `into` without a network; returns how it came there, None where it cannot be.

    Raises TraceError where the folder of data holds another file, OSError where it cannot be written.
    """
    target = into / known(name).path
    if is_right(name, target):
        return "there already"
    for folder in data_folders():
        path = folder / known(name).path
        if path.is_file() and path != target:
            return _keep(name, path.read_bytes(), path, target)
    return None


def fetch(name: str, source: str = SOURCE, into: Path = PUBLISHED_FOLDER) -> str:
    """Have the file in the folder `into` from the repository's files at `source`; returns how it came there.

    Raises TraceError where it cannot be had or is not the published one, OSError where it cannot be written.
    """
    dataset = known(name)
    url = f"{source.rstrip('/')}/{dataset.source}"
    published = download(url)
    try:
        kept = dataset.kept(published)
    except ValueError as wrong:
        raise TraceError(f"{url}: not the published file: {wrong}") from None
    return _keep(name, kept, url, into / dataset.path)


def is_right(name: str, path: Path) -> bool:
    """Whether the file is there and is the published one."""
    with suppress(TraceError, OSError):
        verify(name, path.read_bytes(), path)
        return True
    return False


def _keep(name: str, content: bytes, came_from: Path | str, target: Path) -> str:
    verify(name, content, came_from)
    target.parent.mkdir(parents=True, exist_ok=True)
    write(content, target)
    return f"from {came_from}"


def download(url: str) -> bytes:
    """The bytes at an address, all of them; raises TraceError, OutOfReach where nobody answers."""
    try:
        with urlopen(url, timeout=PATIENCE_S) as answer:
            content: bytes = answer.read(LARGEST + 1)
            length = answer.headers.get("Content-Length")
    except HTTPError as wrong:
        raise TraceError(f"{url}: {wrong.code} {wrong.reason}") from None
    except URLError as wrong:
        error = TraceError if isinstance(wrong.reason, FileNotFoundError) else OutOfReach
        raise error(f"{url}: {wrong.reason}") from None
    except ValueError as wrong:
        raise OutOfReach(f"{url}: {wrong}") from None
    except (HTTPException, OSError) as wrong:
        raise TraceError(f"{url}: broken off: {wrong or type(wrong).__name__}") from None
    if len(content) > LARGEST:
        raise TraceError(f"{url}: larger than {LARGEST:,} bytes")
    if length is not None and len(content) != int(length):
        raise TraceError(f"{url}: broken off after {len(content):,} of {length} bytes")
    return content


def fetch_all(names: Sequence[str], source: str, into: Path) -> list[str]:
    """Have one after the other, a line each; returns the names of those that could not be had."""
    missing: list[str] = []
    answers = True
    for name in names:
        try:
            if (how := at_hand(name, into)) is None:
                if not answers:
                    raise TraceError("not tried, for nobody answers")
                how = fetch(name, source, into)
            sys.stdout.write(f"{name}: {into / known(name).path}, {how}\n")
        except TraceError as wrong:
            missing.append(name)
            answers = answers and not isinstance(wrong, OutOfReach)
            sys.stderr.write(f"{name}: {wrong}\n")
    return missing


def stand_ins(names: Sequence[str]) -> None:
    """Make what stands in for those that could not be had, and say where it lies."""
    for name in names:
        if DATASETS[name].stand_in is not None:
            sys.stdout.write(f"{name}: {stand_in(name)} stands in, made and not published\n")


def listed(into: Path) -> str:
    """A line for each published file: name, where it lies, checksum, where it comes from."""
    lines = []
    for name, dataset in DATASETS.items():
        places = [folder / dataset.path for folder in [*data_folders(), into]]
        place = next((str(path) for path in places if is_right(name, path)), "not here")
        lines.append(f"{name:15} {place}\n{'':15} sha256 {dataset.sha256}, {SOURCE}{dataset.source}\n")
    return "".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what was named, or all; 2 where something could not be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(DATASETS)}; default: all")
    parser.add_argument("--list", action="store_true", help="say what there is and where it lies; fetch nothing")
    parser.add_argument("--from", dest="source", default=SOURCE, metavar="URL", help="default: %(default)s")
    parser.add_argument("--into", type=Path, default=PUBLISHED_FOLDER, help="default: traces/published")
    given = parser.parse_args(arguments)
    try:
        names = given.names or list(DATASETS)
        for name in names:
            known(name)
        if given.list:
            sys.stdout.write(listed(given.into))
            return 0
        missing = fetch_all(names, given.source, given.into)
        stand_ins(missing)
    except TraceError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2
    except OSError as wrong:
        sys.stderr.write(f"cannot write {wrong.filename or given.into}: {wrong.strerror}\n")
        return 2
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
