"""Published traces, prompts and scores: they are found where they lie, and what stands in for them says so."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.catalog import TABLES
from shared.scores import recorded_scores
from tests.test_traces import dispersion
from traces import published, read
from traces.generate import generate, parser
from traces.published import DATASETS, TRACES, as_scores, find, locate, made_prompts
from traces.read import TraceError, read_prompts, read_trace
from traces.shapes import Span
from traces.write import as_csv

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "traces" / "examples").glob("*.csv"))
# Prompts and prompts per second of the published traces (their own figures).
PUBLISHED = {"1to8qps": (1633, 4.7), "2_5to20qps": (4180, 12.1), "4to32qps": (6680, 19.3), "fixed_30qps": (10615, 30.6)}


@pytest.fixture
def nothing_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without published data; returns where stand-ins go."""
    monkeypatch.delenv("CASCADE_DATA", raising=False)
    monkeypatch.setattr(read, "PUBLISHED_FOLDER", tmp_path / "published")
    return tmp_path / "stand-ins"


@pytest.mark.parametrize("name", TRACES)
def test_a_stand_in_has_the_rate_of_the_published_trace_and_says_what_it_is(name: str, nothing_at_hand: Path) -> None:
    path, is_stand_in = find(name, nothing_at_hand)
    assert is_stand_in
    assert path == nothing_at_hand / f"{name}-stand-in.csv"
    first, *_ = path.read_text().splitlines()
    assert first.startswith(f"# stand-in for the published trace {name}: python -m traces.generate --shape ")
    arrivals = read_trace(path)
    prompts, rate = PUBLISHED[name]
    assert len(arrivals) == pytest.approx(prompts, abs=4 * prompts**0.5)
    assert len(arrivals) / arrivals[-1].at_s == pytest.approx(rate, rel=0.08)


@pytest.mark.parametrize("name", TRACES)
def test_a_stand_in_has_the_shape_of_the_published_trace(name: str, tmp_path: Path) -> None:
    path, is_stand_in = find(name, tmp_path)
    if is_stand_in:
        pytest.skip("the published traces are not at hand")
    assert len(read_trace(path)) == PUBLISHED[name][0]
    loads = [
        [sum(part * 34.7 <= arrival.at_s < (part + 1) * 34.7 for arrival in read_trace(each)) for part in range(10)]
        for each in (path, published.stand_in(name, tmp_path))
    ]
    for there, here in zip(*loads, strict=True):
        assert here == pytest.approx(there, abs=4 * (2 * there) ** 0.5 + 0.1 * max(loads[0]))


def test_a_stand_in_of_an_older_generator_is_made_anew(nothing_at_hand: Path) -> None:
    path, _ = find("1to8qps", nothing_at_hand)
    made = path.read_bytes()
    path.write_bytes(b"old")
    assert find("1to8qps", nothing_at_hand).path.read_bytes() == made
    untouched = path.stat().st_mtime_ns
    find("1to8qps", nothing_at_hand)
    assert path.stat().st_mtime_ns == untouched, "another run may be reading it"


def test_prompts_that_stand_in_are_as_many_and_all_differ(nothing_at_hand: Path) -> None:
    path, is_stand_in = find("prompts", nothing_at_hand)
    assert is_stand_in
    prompts = read_prompts(path)
    assert len(set(prompts)) == len(prompts) == 5000
    assert statistics.pstdev(len(prompt) for prompt in prompts) > 20, "hard and easy ones"
    assert made_prompts() == made_prompts()


def test_scores_have_no_stand_in_here(nothing_at_hand: Path) -> None:
    with pytest.raises(TraceError, match=r"scores_sdxs: not at hand.*python -m traces.fetch scores_sdxs"):
        find("scores_sdxs", nothing_at_hand)


@pytest.mark.parametrize(
    ("given", "label"),
    [("4to32qps", "4to32qps-stand-in"), ("4to32", "4to32qps-stand-in"), ("fixed_30", "fixed_30qps-stand-in")],
)
def test_a_trace_is_located_by_its_name(given: str, label: str, nothing_at_hand: Path) -> None:
    located = locate(given, nothing_at_hand)
    assert (located.label, located.is_stand_in) == (label, True)


def test_a_trace_is_located_by_its_path(nothing_at_hand: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("arrival_s\n1\n")
    assert locate(str(path), nothing_at_hand) == (path, "mine", False)
    with pytest.raises(TraceError, match=r"absent.csv: no such file, and no published trace; there are 1to8qps"):
        locate(str(tmp_path / "absent.csv"), nothing_at_hand)


def test_scores_are_kept_a_row_a_prompt() -> None:
    first = b"9.999825954437255859e-01\n9.999848604202270508e-01\n7.450290322303771973e-01\n1.740743219852447510e-01\n"
    header, row, *rest = as_scores(first * 5000).decode().split("\n")
    assert header == "p_fake_image0,p_fake_image1,p_fake_image2,p_fake_image3"
    assert row == "0.999983,0.999985,0.745029,0.174074"
    assert len(rest) == 5000
    assert rest[-1] == ""
    for wrong in (b"", first, b"nothing\n" * 20000):
        with pytest.raises(ValueError, match=r"numbers, not 20000|could not convert"):
            as_scores(wrong)


@pytest.mark.parametrize("cascade", ["sdturbo", "sdxs"])
def test_scores_that_were_fetched_are_those_that_are_used(
    cascade: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CASCADE_DATA", raising=False)
    monkeypatch.setattr("shared.scores.FETCHED", tmp_path)
    assert len(recorded_scores(cascade, TABLES)) == 500
    path = tmp_path / DATASETS[f"scores_{cascade}"].path
    path.parent.mkdir(parents=True)
    path.write_bytes(as_scores(b"0.5\n" * 20000))
    assert recorded_scores(cascade, TABLES) == (0.5,) * 5000


def regenerated(first_line: str) -> str:
    words = first_line.removeprefix("# python -m traces.generate ").split(" (curve: ")[0].split()
    given = parser().parse_args(words)
    return as_csv(*generate(given.shape, Span(given.low, given.high, given.seconds, given.seed)))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_what_its_first_line_makes(path: Path) -> None:
    text = path.read_text()
    assert regenerated(text.splitlines()[0]) == text
    assert 200 < len(read_trace(path)) < 500


def test_the_examples_show_every_kind_of_load() -> None:
    assert {path.stem.split("-")[0] for path in EXAMPLES} == {"azure", "poisson", "bursty", "steps"}
    spread: Callable[[str, float], float] = lambda name, seconds: dispersion(  # noqa: E731
        [arrival.at_s for path in EXAMPLES if path.stem.startswith(name) for arrival in read_trace(path)], seconds
    )
    assert spread("bursty", 120) > 3 > 1.5 > spread("poisson", 100)
