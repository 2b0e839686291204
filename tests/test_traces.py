"""Traces: what is read is what was written, what is generated has the rates that were asked for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import generate as command
from traces import read as reading
from traces.generate import generate
from traces.read import Arrival, TraceError, cut, data_folders, read_prompts, read_trace, scale
from traces.shapes import OUTLINE, SHAPES, Span
from traces.write import arrivals_as_csv, as_csv

SPAN = Span(low=4.0, high=32.0, seconds=350.0)


def counts(times: Sequence[float], seconds: float, window_s: float = 1.0) -> list[int]:
    filled = [0] * round(seconds / window_s)
    for at_s in times:
        filled[int(at_s / window_s)] += 1
    return filled


def dispersion(times: Sequence[float], seconds: float) -> float:
    """Variance over mean of one-second counts: 1 for a Poisson process of one rate."""
    filled = counts(times, seconds)
    return statistics.variance(filled) / statistics.fmean(filled)


def written(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def rates(shape: str, span: Span, parts: int) -> list[float]:
    """Prompts per second in each of `parts` equal parts, over 20 seeds."""
    runs = [
        counts(generate(shape, replace_seed(span, seed))[0], span.seconds, span.seconds / parts) for seed in range(20)
    ]
    return [statistics.fmean(run[part] for run in runs) / (span.seconds / parts) for part in range(parts)]


def replace_seed(span: Span, seed: int) -> Span:
    return Span(span.low, span.high, span.seconds, seed, span.curve)


def test_the_published_form_is_sorted_and_in_seconds(tmp_path: Path) -> None:
    path = written(tmp_path, "1500.0,7\n\n# a comment\n250.0,4999\n")
    assert read_trace(path) == [Arrival(0.25, 4999), Arrival(1.5, 7)]
    assert read_trace(written(tmp_path, "arrival_ms,prompt_index\n1500,7\n")) == [Arrival(1.5, 7)]


def test_the_plain_form_with_and_without_prompts(tmp_path: Path) -> None:
    for mark in ("", "\ufeff"):  # spreadsheets write one
        assert read_trace(written(tmp_path, f"{mark}arrival_s\n2\n0.5\n")) == [Arrival(0.5, 1), Arrival(2.0, 0)]
    path = written(tmp_path, '# made by hand\narrival_s,prompt\n0.5,"a cat, a hat"\n')
    assert read_trace(path) == [Arrival(0.5, 0, "a cat, a hat")]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("100,1\nabc,2\n", ":2: arrival_ms: not a number: 'abc'"),
        ("100,1\n1_000,2\n", ":2: arrival_ms: not a number: '1_000'"),
        ("100,1\n-5,2\n", ":2: arrival_ms: must be finite and not negative, got -5"),
        ("100,1\nnan,2\n", ":2: arrival_ms: must be finite"),
        ("100,1\n\n# note\ninf,2\n", ":4: arrival_ms: must be finite"),
        ("100,1\n200\n", ":2: prompt_index: missing"),
        ("100,1\n200,\n", ":2: prompt_index: missing"),
        ("100,1.5\n", ":1: prompt_index: not a whole number: 1.5"),
        ("100,-1\n", ":1: prompt_index: must be finite and not negative"),
        ("100,1,2\n", ":1: arrival_ms,prompt_index: one field too many: '2'"),
        ("arrival_s\n1\n-2\n", ":3: arrival_s: must be finite"),
        ("arrival_s\n1,a cat\n", ":2: arrival_s: one field too many"),
        ("arrival_s,prompt\n1\n", ":2: prompt: missing"),
        ("arrival_s,prompt\n1,a cat, a hat\n", ":2: arrival_s,prompt: one field too many"),
        ('arrival_s,prompt\n1,"a cat\n', ":2: unexpected end of data"),
        ("arrival,prompt\n1,2\n", ":1: prompt_index: not a number: 'prompt'"),
        ("", ": no arrivals"),
        ("arrival_s\n", ": no arrivals"),
    ],
)
def test_a_malformed_trace_is_one_line_that_names_file_line_and_field(tmp_path: Path, text: str, place: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError) as wrong:
        read_trace(path)
    assert str(wrong.value).startswith(f"{path}{place}")
    assert "\n" not in str(wrong.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for read in (read_trace, read_prompts):
        with pytest.raises(TraceError, match=r"absent.csv: No such file"):
            read(tmp_path / "absent.csv")
        with pytest.raises(TraceError, match="Is a directory"):
            read(tmp_path)
        (tmp_path / "binary.csv").write_bytes(b"1,2\n\xff\xfe\n")
        with pytest.raises(TraceError, match=r"binary.csv: not UTF-8 text at byte 4"):
            read(tmp_path / "binary.csv")


def test_prompts_keep_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n a\u2028hat \r\nlast\n", newline="")
    assert read_prompts(path) == ["a cat", "", "a\u2028hat", "last"]
    path.write_text("\n \n")
    with pytest.raises(TraceError, match="no prompts"):
        read_prompts(path)


def test_the_data_folders_are_what_the_environment_names_and_what_was_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, fetched = tmp_path / "named", tmp_path / "fetched"
    monkeypatch.setattr(reading, "PUBLISHED_FOLDER", fetched)
    monkeypatch.delenv("CASCADE_DATA", raising=False)
    assert data_folders() == []
    fetched.mkdir()
    assert data_folders() == [fetched]
    monkeypatch.setenv("CASCADE_DATA", str(named))
    with pytest.raises(TraceError, match=r"CASCADE_DATA: .*named is no folder"):
        data_folders()
    named.mkdir()
    assert data_folders() == [named, fetched]


def test_cutting_keeps_what_comes_before() -> None:
    trace = [Arrival(0.5, 5), Arrival(2.0, 6), Arrival(3.0, 7)]
    assert cut(trace, 3.0) == trace[:2]
    for seconds in (0.5, 0.0, -1.0, float("nan")):
        with pytest.raises(TraceError, match="seconds: no arrival in the first"):
            cut(trace, seconds)


@pytest.mark.parametrize("trace", [[Arrival(0.25, 4999), Arrival(1.5, 7)], [Arrival(0.5, 0, 'a "cat", a\nhat')]])
def test_arrivals_that_are_written_are_read_again(trace: list[Arrival], tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, arrivals_as_csv(trace, "made by hand"))) == trace


def test_scaling_time_keeps_the_prompts() -> None:
    trace = [Arrival(1.0, 5), Arrival(3.0, 6, "a cat")]
    assert scale(trace, time=0.5) == [Arrival(0.5, 5), Arrival(1.5, 6, "a cat")]
    assert scale(trace) == trace


@settings(max_examples=10, deadline=None)
@given(rate=st.floats(0.1, 4.0), seed=st.integers(0, 99))
def test_scaling_the_rate_keeps_the_shape_over_time(rate: float, seed: int) -> None:
    times, _ = generate("steps", Span(10.0, 40.0, 200.0, seed))
    trace = [Arrival(at_s, place) for place, at_s in enumerate(times)]
    scaled = scale(trace, rate=rate, seed=seed)
    assert [arrival.at_s for arrival in scaled] == sorted(arrival.at_s for arrival in scaled)
    assert {arrival.index for arrival in scaled} <= {arrival.index for arrival in trace}
    before, after = counts(times, 200, 40), counts([arrival.at_s for arrival in scaled if arrival.at_s < 200], 200, 40)
    for asked, got in zip(before, after, strict=True):
        assert got == pytest.approx(asked * rate, abs=5 * (asked * max(rate, 1)) ** 0.5)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_must_be_positive_and_finite(factor: float) -> None:
    with pytest.raises(TraceError, match="rate: must be positive"):
        scale([Arrival(1.0, 0)], rate=factor)
    with pytest.raises(TraceError, match="time: must be positive"):
        scale([Arrival(1.0, 0)], time=factor)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("poisson", [18, 18, 18, 18, 18]),
        ("steps", [4, 4 + 28 / 3, 4 + 56 / 3, 32, 4]),
        # The mean of sin^2 over each fifth: 1/2 - 5 (sin(2 pi b) - sin(2 pi a)) / (4 pi).
        ("hill", [4 + 28 * share for share in (0.1216, 0.6445, 0.9677, 0.6445, 0.1216)]),
    ],
)
def test_the_rates_are_those_intended(shape: str, expected: list[float]) -> None:
    # 20 seeds of 70 s each: a standard error of at most 0.15 prompts/s.
    assert rates(shape, SPAN, 5) == pytest.approx(expected, abs=0.6)


def test_azure_follows_the_published_curve(tmp_path: Path) -> None:
    folder = tmp_path / "diffserve/traces"
    folder.mkdir(parents=True)
    (folder / "azure_shape_hourly.csv").write_text(",hour,invocations\n0,0,1.0\n1,1,3.0\n2,2,2.0\n")
    runs = [generate("azure", replace_seed(SPAN, seed), [tmp_path]) for seed in range(20)]
    halves = [counts(times, 350, 175) for times, _ in runs]
    assert statistics.fmean(half[0] for half in halves) / 175 == pytest.approx(18, abs=0.6)
    assert statistics.fmean(half[1] for half in halves) / 175 == pytest.approx(25, abs=0.6)
    assert runs[0][1].endswith("(curve: published, azure_shape_hourly.csv)")


def test_without_the_published_curve_azure_follows_its_outline_and_says_so() -> None:
    _, about = generate("azure", SPAN)
    assert about.endswith("(curve: outline of the published one)")
    runs = [counts(generate("azure", replace_seed(SPAN, seed))[0], 350, 17.5) for seed in range(20)]
    for part, (before, after) in enumerate(pairwise(OUTLINE)):
        rate = statistics.fmean(run[part] for run in runs) / 17.5
        assert rate == pytest.approx(4 + 28 * (before + after) / 2, abs=1.2)


@pytest.mark.parametrize("text", ["", ",hour,visits\n0,0,1\n1,1,2\n", ",hour,invocations\n0,0,1.0\n"])
def test_a_curve_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "diffserve/traces"
    folder.mkdir(parents=True)
    (folder / "azure_shape_hourly.csv").write_text(text)
    with pytest.raises(TraceError, match=r"azure_shape_hourly.csv:1: invocations"):
        generate("azure", SPAN, [tmp_path])


def test_poisson_is_not_dispersed_and_bursty_is() -> None:
    long = Span(4.0, 32.0, 3000.0, seed=1)
    assert dispersion(generate("poisson", long)[0], 3000) == pytest.approx(1.0, abs=0.12)
    times, _ = generate("bursty", long)
    assert 8 < dispersion(times, 3000) < 20
    # A quarter of the time in bursts: 11 prompts/s in the mean.
    assert len(times) / 3000 == pytest.approx(11, abs=1.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_trace_is_ascending_within_its_span_and_the_seed_decides_it(shape: str) -> None:
    times, about = generate(shape, SPAN)
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] < SPAN.seconds
    assert generate(shape, SPAN) == (times, about)
    assert generate(shape, replace_seed(SPAN, 1))[0] != times


@pytest.mark.parametrize("shape", SHAPES)
def test_what_the_command_writes_is_what_the_reader_reads(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    assert command.main(["--shape", shape, "--seconds", "60", "--out", str(path)]) == 0
    times, _ = generate(shape, Span(4.0, 32.0, 60.0), data_folders())
    read = read_trace(path)
    assert [arrival.at_s for arrival in read] == pytest.approx(times, abs=1e-6)
    assert [arrival.index for arrival in read] == list(range(len(times)))
    command_made = f"# python -m traces.generate --shape {shape} --low 4 --high 32 --seconds 60 --seed 0"
    assert path.read_text().startswith(command_made)
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.csv"]


def test_without_a_file_the_trace_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--shape", "hill", "--seconds", "5"]) == 0
    assert capsys.readouterr().out == as_csv(*generate("hill", Span(4.0, 32.0, 5.0)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "/dev/full"], "cannot write /dev/full: No space left on device"),
        (["--out", "/dev/null/trace.csv"], "cannot write /dev/null/trace.csv: Not a directory"),
        (["--low", "9", "--high", "3"], "low, high: need 0 <= low <= high"),
        (["--low", "-1"], "low, high: need"),
        (["--low", "0", "--high", "0"], "low, high: need"),
        (["--high", "inf"], "low, high: need"),
        (["--low", "nan"], "low, high: need"),
        (["--seconds", "0"], "seconds: must be positive"),
        (["--seconds", "nan"], "seconds: must be positive"),
        (["--high", "1e9"], "high, seconds: up to 3.5e+11 prompts"),
    ],
)
def test_what_cannot_be_made_or_written_is_one_line_and_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--shape", "hill", *words]) == 2
    heard = capsys.readouterr().err
    assert heard.startswith(said)
    assert len(heard.splitlines()) == 1


def test_a_disk_that_fills_half_way_leaves_the_old_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "old")

    def full(*_: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert command.main(["--shape", "hill", "--seconds", "5", "--out", str(path)]) == 2
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["trace.csv"]
