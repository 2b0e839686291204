"""The published traces, prompts and scores of the DiffServe artifact: what they are, and where they lie.

    path, is_stand_in = find("4to32qps")

looks in the folder that CASCADE_DATA names, then in what `traces.fetch` got. Where a trace or the prompts are in
neither, a made one of the same shape and rate stands in, under a name that says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from traces.generate import generate
from traces.read import TraceError, data_folders
from traces.shapes import Span
from traces.write import as_csv, write

COMMIT: Final = "7f2e4d7085aa5de9e7736ae56e2a2ca947fb3c88"
SOURCE: Final = f"https://raw.githubusercontent.com/qizhengyang98/DiffServe/{COMMIT}/"
STAND_INS: Final = Path(__file__).resolve().parent.parent / "logs" / "stand-ins"
SECONDS: Final = 347.0  # one for each hour of the curve
PROMPTS: Final = 5000

COLOURS: Final = ("red", "blue", "green", "golden", "silver", "black", "white", "purple")
THINGS: Final = ("castle", "fox", "harbour", "robot", "garden", "portrait of a sailor", "mountain lake", "city street")
DETAILS: Final = (
    *("oil on canvas", "at dawn", "in the rain", "highly detailed", "soft light", "35 mm film"),
    *("watercolour", "seen from above", "crowded with people", "in the style of an old poster"),
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """One published file.

    `path`: its place in a folder of data. `source`: its place in the artifact's repository. `kept`: makes the
    file that is kept of the published bytes; raises ValueError. `sha256`: of the file as it is kept.
    `stand_in`: makes a text to use in its place, and its name ends so.
    """

    path: str
    source: str
    sha256: str
    kept: Callable[[bytes], bytes] = bytes
    stand_in: Callable[[], str] | None = None
    ending: str = ".csv"


class Found(NamedTuple):
    """Where a file lies, and whether it merely stands in for the published one."""

    path: Path
    is_stand_in: bool


class Located(NamedTuple):
    """A trace that somebody named; `label` names runs of it."""

    path: Path
    label: str
    is_stand_in: bool


def find(name: str, cache: Path = STAND_INS) -> Found:
    """The published file of that name, or what stands in for it, made in the folder `cache`.

    Raises TraceError for an unknown name, a file that is not the published one, and where nothing stands in;
    OSError where the stand-in cannot be written.
    """
    dataset = known(name)
    for folder in data_folders():
        path = folder / dataset.path
        if path.is_file():
            verify(name, path.read_bytes(), path)
            return Found(path, False)
    return Found(stand_in(name, cache), True)


def locate(given: str, cache: Path = STAND_INS) -> Located:
    """A trace by its published name, with or without `qps`, or by its path; raises as `find`."""
    name = given if given in TRACES else f"{given}qps"
    if name in TRACES:
        path, is_stand_in = find(name, cache)
        return Located(path, path.stem if is_stand_in else name, is_stand_in)
    if not Path(given).exists():
        raise TraceError(f"{given}: no such file, and no published trace; there are {', '.join(TRACES)}")
    return Located(Path(given), Path(given).stem, False)


def known(name: str) -> Dataset:
    """The dataset of that name; raises TraceError."""
    if name not in DATASETS:
        raise TraceError(f"{name}: no such published file; there are {', '.join(DATASETS)}")
    return DATASETS[name]


def verify(name: str, content: bytes, place: Path | str) -> None:
    """Raise TraceError if these bytes are not those of the published file as it is kept."""
    found = hashlib.sha256(content).hexdigest()
    if found != DATASETS[name].sha256:
        raise TraceError(f"{place}: SHA-256 {found[:12]}..., not the published {DATASETS[name].sha256[:12]}...")


def stand_in(name: str, cache: Path = STAND_INS) -> Path:
    """Make what stands in for a published file; raises TraceError where nothing does, OSError."""
    dataset = DATASETS[name]
    if dataset.stand_in is None:
        raise TraceError(f"{name}: not at hand, and nothing stands in; `python -m traces.fetch {name}` gets it")
    path = cache / f"{name}-stand-in{dataset.ending}"
    text = dataset.stand_in()
    # Made anew, so that one of an older generator is not taken; left alone where others may be reading the same.
    if not path.is_file() or path.read_bytes() != text.encode():
        cache.mkdir(parents=True, exist_ok=True)
        write(text, path)
    return path


def _like(name: str, shape: str, low: float, high: float) -> Callable[[], str]:
    def made() -> str:
        times, about = generate(shape, Span(low, high, SECONDS))
        return as_csv(times, f"stand-in for the published trace {name}: {about}")

    return made


def made_prompts() -> str:
    """Numbered captions, one a line, of as many words as people write."""
    random = Random("prompts")
    lines = []
    for number in range(PROMPTS):
        details = random.sample(DETAILS, random.randrange(len(DETAILS)))
        caption = f"a {random.choice(COLOURS)} {random.choice(THINGS)}"
        lines.append(", ".join([caption, *details, f"number {number}"]) + "\n")
    return "".join(lines)


def as_scores(published: bytes) -> bytes:
    """P(fake) of four pictures a prompt: published as a number a line, kept as a row a prompt, to six digits."""
    numbers = [f"{float(line):.6f}" for line in published.decode().split()]
    if len(numbers) != 4 * PROMPTS:
        raise ValueError(f"{len(numbers)} numbers, not {4 * PROMPTS}")
    header = ",".join(f"p_fake_image{image}" for image in range(4))
    rows = [",".join(numbers[first : first + 4]) for first in range(0, len(numbers), 4)]
    return "\n".join([header, *rows, ""]).encode()


_HERE: Final = "diffserve/"
_THERE: Final = "traces/maf/"
# Checksums were computed from the files of the artifact at COMMIT; those of the scores from the form kept here.
TRACES: Final[Mapping[str, Dataset]] = {
    "1to8qps": Dataset(
        f"{_HERE}traces/trace_1to8qps.txt",
        f"{_THERE}sdturbo_sdv15_dynamic_testbed/trace_1to8qps.txt",
        "4f3a6a769f890470b898e299322d8857d59c864a37d4802ac453d3f7ce07f07a",
        stand_in=_like("1to8qps", "azure", 1.0, 8.0),
    ),
    "2_5to20qps": Dataset(
        f"{_HERE}traces/trace_2_5to20qps.txt",
        f"{_THERE}sdturbo_sdv15_dynamic_testbed/trace_2_5to20qps.txt",
        "bac8fafce26b64271f7d3043b89862902b1a3c6cb94e19001f5b59b2815b0f1f",
        stand_in=_like("2_5to20qps", "azure", 2.5, 20.0),
    ),
    "4to32qps": Dataset(
        f"{_HERE}traces/trace_4to32qps.txt",
        f"{_THERE}sdturbo_sdv15_dynamic_testbed/trace_4to32qps.txt",
        "7004c3967a5da4c4e3456cc3dd78b3d009b484811820c5d11f0f6c76c81ad505",
        stand_in=_like("4to32qps", "azure", 4.0, 32.0),
    ),
    "fixed_30qps": Dataset(
        f"{_HERE}traces/fixed_30qps.txt",
        f"{_THERE}sdturbo_sdv15_fixed_30qps/sdturbo_sdv15.txt",
        "d14b92c329e9023dfba5d9c0f4bb26a4fdbdf7f87f7df1bddc3bd90a82b55369",
        stand_in=_like("fixed_30qps", "poisson", 30.6, 30.6),
    ),
}
DATASETS: Final[Mapping[str, Dataset]] = {
    **TRACES,
    "azure_shape": Dataset(
        f"{_HERE}traces/azure_shape_hourly.csv",
        f"{_THERE}shape/transformed_invocations.csv",
        "6f0debc6bda06d5ba6c598af7926303fe0157a61afb32a23e529bd5df70a895e",
    ),
    "prompts": Dataset(
        f"{_HERE}prompts_diffusiondb_5k.txt",
        "traces/text_diffusiondb_2m_first_5k.txt",
        "406fcf1483b491a19d731fbdb858b7e87ec433db1ce5771c4a0711b2e9d72252",
        stand_in=made_prompts,
        ending=".txt",
    ),
    "scores_sdturbo": Dataset(
        f"{_HERE}p_fake_sdturbo.csv",
        "models/dist_sdturbo.txt",
        "5c77c50dbac86aa987c9b04cb9bf7914e9d69322615fb265f2044fc89eee8c7f",
        kept=as_scores,
    ),
    "scores_sdxs": Dataset(
        f"{_HERE}p_fake_sdxs.csv",
        "models/dist_sdxs.txt",
        "0816cba9b49153fa55ac8eeb85efe27a5845c9bac6b029d05576d06728c74fb2",
        kept=as_scores,
    ),
}
