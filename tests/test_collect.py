"""What Redis forgets is kept: each outcome and plan once, in tables that fit together."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import dataset

from analysis import collect
from shared.broker import Broker
from shared.embedded import EmbeddedRedis
from shared.errors import CascadeError
from shared.plans import Plan, View
from tests.conftest import fresh_deployment
from tests.helpers import a_plan, hire, outcomes, publish

DAY_MS = 86_400_000
MIDNIGHT_MS = 1_700_006_400_000  # 15 November 2023


@pytest.fixture
def oldest(oldest_server: EmbeddedRedis) -> Iterator[Broker]:
    """A deployment whose outcomes the test writes itself: no prompt was ever offered."""
    for broker in fresh_deployment(oldest_server):
        yield broker
        broker.client.delete(broker.keys.done)


def run_some(broker: Broker, *ids: str) -> None:
    """Each prompt light, and those whose id begins with `h` heavy."""
    publish(broker, *ids, seed=10**29)
    light, heavy = hire(broker), hire(broker, "heavy")
    for entry in light.take(len(ids)):
        if entry.job.id.startswith("h"):
            light.escalate(entry, 0.25)
        else:
            light.end(entry)
    for entry in heavy.take(len(ids)):
        heavy.end(entry, why="cascade")


def put_plans(broker: Broker, *plans: Plan) -> None:
    assert broker.hold(broker.keys.leader("control"), "control")
    for plan in plans:
        assert broker.put_plan(plan, View(0.0, (3, 4), ()), "control")


def gather(broker: Broker, out: Path, *more: str) -> int:
    place = ["--redis-url", broker.settings.redis_url, "--deployment", broker.settings.deployment]
    return collect.main([*place, "--out", str(out), *more])


def table(out: Path, broker: Broker, name: str) -> list[dict[str, Any]]:
    folder = out / broker.settings.deployment / name
    return list(dataset.dataset(folder, partitioning="hive").to_table().sort_by("entry").to_pylist())


def files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("until-*"))


def test_each_outcome_and_plan_is_a_row_once_however_often_it_is_collected(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_some(broker, "a", "b")
    put_plans(broker, a_plan(1, assignment={"n:0": "light"}))
    assert gather(broker, tmp_path) == 0
    first = files(tmp_path)
    assert gather(broker, tmp_path) == 0
    assert files(tmp_path) == first, "nothing new, no file"
    run_some(broker, "h1", "c")
    junk: dict[Any, Any] = {"version": "3", "mood": "blue"}
    broker.client.xadd(broker.keys.plans, junk)
    put_plans(broker, a_plan(2, threshold=0.75, lot=True))
    assert gather(broker, tmp_path) == 0
    rows = {row["id"]: row for row in table(tmp_path, broker, "outcomes")}
    assert len(files(tmp_path)) == 4 and len(table(tmp_path, broker, "outcomes")) == 4
    for outcome in outcomes(broker):
        row = rows[outcome.id]
        assert (row["end"], row["why"], row["prompt"]) == (outcome.end, outcome.why, outcome.prompt)
        assert (row["published"], row["finished"]) == (outcome.published, outcome.finished)
        assert (row["score"], row["on_time"], row["seed"]) == (outcome.score, 1, str(10**29))
        (light, *heavy) = outcome.visits
        assert (row["light_started"], row["light_worker"], row["light_batch"]) == (light.started, light.worker, 1)
        assert row["heavy_finished"] == (heavy[0].finished if heavy else None)
    assert rows["h1"]["heavy_worker"].startswith("heavy-")
    plans = table(tmp_path, broker, "plans")
    assert [(row["version"], row["threshold"], row["lot"]) for row in plans] == [(1, 0.5, False), (2, 0.75, True)]
    assert plans[0]["assignment"] == '{"n:0": "light"}' and '"offered"' in plans[0]["view"]
    assert "2 new rows in" in capsys.readouterr().out


def test_csv_holds_the_same_rows_and_goes_on_from_parquet(broker: Broker, tmp_path: Path) -> None:
    run_some(broker, "a")
    gather(broker, tmp_path)
    run_some(broker, "h2")
    gather(broker, tmp_path, "--csv")
    (path,) = tmp_path.rglob("*.csv")
    with path.open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    gather(broker, tmp_path / "other")
    whole = table(tmp_path / "other", broker, "outcomes")[1]
    assert {name: "" if value is None else str(value) for name, value in whole.items()} == row


def test_where_pyarrow_is_not_installed_the_tables_are_csv(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    run_some(broker, "a")
    gather(broker, tmp_path)
    assert [Path(name).suffix for name in files(tmp_path)] == [".csv"]


def settled_at(broker: Broker, *stamps_ms: int) -> None:
    """Outcomes as if they had been settled at these times."""
    for stamp in stamps_ms:
        fields: dict[Any, Any] = {"id": f"p{stamp}", "end": "dropped", "why": "deadline", "finished": stamp / 1000}
        broker.client.xadd(broker.keys.done, fields, id=f"{stamp}-0")


def test_the_rows_of_each_day_lie_in_a_folder_of_their_own(oldest: Broker, tmp_path: Path) -> None:
    settled_at(oldest, MIDNIGHT_MS - 1, MIDNIGHT_MS, MIDNIGHT_MS + 5, MIDNIGHT_MS + DAY_MS)
    gather(oldest, tmp_path, "--day")
    root = f"{oldest.settings.deployment}/outcomes/day=2023-11-"
    assert files(tmp_path) == [
        f"{root}14/until-{MIDNIGHT_MS - 1}-0.parquet",
        f"{root}15/until-{MIDNIGHT_MS + 5}-0.parquet",
        f"{root}16/until-{MIDNIGHT_MS + DAY_MS}-0.parquet",
    ]
    settled_at(oldest, MIDNIGHT_MS + DAY_MS + 1)
    gather(oldest, tmp_path, "--day")
    days = [str(row["day"]) for row in table(tmp_path, oldest, "outcomes")]
    assert days == ["2023-11-14", "2023-11-15", "2023-11-15", "2023-11-16", "2023-11-16"]


def test_long_streams_become_several_files_and_what_is_no_outcome_is_passed_over(
    oldest: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "PART_ROWS", 700)
    settled_at(oldest, *range(1_000, 2_500))
    junk: dict[Any, Any] = {"mood": "blue"}
    oldest.client.xadd(oldest.keys.done, junk, id="2500-0")
    settled_at(oldest, 2_501)
    gather(oldest, tmp_path)
    assert len(files(tmp_path)) == 3
    assert [row["id"] for row in table(tmp_path, oldest, "outcomes")] == [
        f"p{n}" for n in (*range(1_000, 2_500), 2_501)
    ]


def test_what_redis_forgot_before_it_was_collected_is_said(
    oldest: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settled_at(oldest, 1, 2)
    gather(oldest, tmp_path)
    settled_at(oldest, 3, 4)
    oldest.client.xtrim(oldest.keys.done, maxlen=3, approximate=False)  # the last one collected is still there
    gather(oldest, tmp_path)
    assert "missing" not in capsys.readouterr().out
    settled_at(oldest, 5, 6)
    oldest.client.xtrim(oldest.keys.done, maxlen=1, approximate=False)
    gather(oldest, tmp_path)
    assert "1 new rows" in (said := capsys.readouterr().out) and "may be missing" in said


def test_two_collectors_do_not_write_the_same_rows_twice(oldest: Broker, tmp_path: Path) -> None:
    settled_at(oldest, 1)
    with (
        collect.alone(tmp_path / oldest.settings.deployment),
        pytest.raises(CascadeError, match="another collector is at work"),
    ):
        gather(oldest, tmp_path)
    assert gather(oldest, tmp_path) == 0


def test_a_folder_that_cannot_be_written_is_one_clear_error(oldest: Broker, tmp_path: Path) -> None:
    (tmp_path / "records").write_text("in the way")
    with pytest.raises(CascadeError, match="records"):
        gather(oldest, tmp_path / "records")
