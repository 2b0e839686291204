"""`python -m planner.simulator`: the summary of a live run, and one line for what a user can mend."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.trial import make_trial
from shared.catalog import load_cascade
from shared.summary import summarise


def simulator(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "planner.simulator", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_prints_the_summary_of_a_live_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s\n" + "".join(f"{number / 5}\n" for number in range(100)))
    options = ("--trace", str(trace), "--cascade", "sdturbo", "--gpus", "4", "--policy", "quality")
    told = json.loads(simulator(*options, "--json").stdout)
    assert told.keys() == summarise(make_trial(str(trace), "sdturbo", 4).run("quality"), load_cascade("sdturbo")).keys()
    assert told["offered"] == told["light"] + told["heavy"] > 50
    assert "violation" in simulator(*options).stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--gpus": "0"}, "gpus: must be at least 1"),
        ({"--cascade": "sdnone"}, "no cascade 'sdnone'"),
        ({"--deadline-s": "0"}, "deadline_s: must be finite and positive"),
        ({"--jitter-s": "-1"}, "jitter_s: must be finite and not negative"),
        ({"--jitter-s": "nan"}, "jitter_s: must be finite and not negative"),
        ({"--repair-s": "inf"}, "repair_s: must be finite and positive"),
        ({"--mean-time-between-failures-s": "0"}, "mean_time_between_failures_s: must be"),
        ({"--gpu": "h100"}, "has no rows for GPU 'h100'"),
        ({"--policy": "best"}, "policy: no 'best'"),
        ({"--solver": "magic"}, "solver: 'magic'"),
        ({"--trace": "/nowhere.csv"}, "/nowhere.csv: no such file"),
        ({"--trace": "BAD"}, ":2: arrival_s: must be finite and not negative"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(tmp_path: Path, change: dict[str, str], says: str) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("arrival_s\n0.5\n")
    bad.write_text("arrival_s\n-0.5\n")
    options = {"--trace": str(good), "--cascade": "sdturbo", "--gpus": "2", **change}
    options["--trace"] = options["--trace"].replace("BAD", str(bad))
    ended = simulator(*(part for pair in options.items() for part in pair))
    assert ended.returncode == 2
    assert says in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
