"""What the gateway remembers of its deployment: the figures of its tiles and time lines, over restarts and outages."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from services.gateway import history as remembering
from services.gateway.counting import Bucket, counted, joined, moment, tiles
from services.gateway.history import History
from services.gateway.snapshot import Snapshot
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.ledger import Tally, account
from shared.lookout import AT_ONCE, News
from shared.messages import Visit
from tests.helpers import a_plan, an_outcome, hire, outcomes, publish, put_plan, spoilt

PLAN = a_plan(light_workers=2, heavy_workers=1, heavy_share=0.4, demand=7.0, assignment={"test:0": "light"})


# -- the rules ---------------------------------------------------------------------------------------------------


def test_the_tiles_of_a_minute_are_the_ledger_of_its_outcomes() -> None:
    ended = [an_outcome(number) for number in range(7)]
    ended += [an_outcome(8, "heavy", "drawn"), an_outcome(9, "dropped", "deadline", visits=())]
    ended += [replace(an_outcome(10), deadline=9.0), an_outcome(11, "failed", "poison", visits=())]
    buckets = [Bucket.of(10.0 + second, 1.0, ended[second::3]) for second in range(3)]
    buckets[1].offered, buckets[1].refusals = 14, Counter({"refused:deadline": 3})
    cascade = load_cascade("sdturbo")
    shown, ledger = tiles(joined(buckets), PLAN, cascade), account(ended, 14, 3)
    assert shown.on_time == pytest.approx(1 - ledger.violation) == pytest.approx(8 / 14)
    assert (shown.late, shown.refused, shown.offered, shown.seconds) == (1, 3, 14, 3.0)
    assert shown.ends == ledger.ends
    assert shown.why == {**ledger.why, "refused:deadline": 3}
    assert (shown.p50_s, shown.p99_s) == (ledger.latency_s(50), ledger.latency_s(99))
    assert shown.heavy_share == pytest.approx(1 / 9)
    assert shown.per_s("dropped") == pytest.approx(1 / 3)
    assert shown.quality is not None
    assert shown.quality.value == pytest.approx(cascade.curve().at(1 / 8))


def test_nothing_ended_is_no_figure_and_not_a_good_one() -> None:
    shown = tiles(joined([Bucket(10.0, 1.0)]), None, None)
    assert (shown.on_time, shown.p50_s, shown.heavy_share, shown.quality) == (None, None, None, None)
    assert tiles(joined([]), None, None).per_s("light") == 0, "a page may be opened before the first look"


def test_tallies_joined_are_the_tally_of_all() -> None:
    ended = [an_outcome(number, "heavy" if number % 3 else "light", finished=10.0 + number) for number in range(20)]
    whole, parts = Tally(0.0), [Tally(0.0), Tally(0.0)]
    for number, outcome in enumerate(ended):
        whole.add(outcome)
        parts[number > 7].add(outcome)
    parts[0].include(parts[1])
    assert parts[0].ledger(20).latencies_s == whole.ledger(20).latencies_s
    assert parts[0].windows == whole.windows
    assert parts[0].batch_mean("light") == whole.batch_mean("light") == 2
    assert (parts[0].ends, parts[0].why, parts[0].on_time) == (whole.ends, whole.why, whole.on_time)


def test_escalation_is_measured_over_the_prompts_that_a_score_judged() -> None:
    heavy = (*an_outcome(0).visits, Visit("heavy", "n-1-heavy-x", 9.5, 10.0, 4))
    ended = [an_outcome(0, "heavy", "drawn", visits=heavy), an_outcome(1), an_outcome(2, why="no_time")]
    ended += [an_outcome(3, why="deadline"), an_outcome(4, route="light"), an_outcome(5, "dropped", visits=())]
    found = moment(bucket := Bucket.of(10.0, 2.0, ended), bucket, PLAN, None)
    assert found.escalation == 2 / 4
    assert (found.escalation_planned, found.planned_for_per_s, found.threshold) == (0.4, 7.0, 0.5)
    assert (found.light.batch_achieved, found.heavy.batch_achieved, found.heavy.batch_planned) == (2, 4, 4)
    assert found.ends_per_s["dropped"] == 0.5
    bucket.refusals["refused:memory"] = 5
    assert moment(bucket, bucket, PLAN, None).violations_per_s == (1 + 5) / 2, "one dropped, five refused, in 2 s"
    assert (found.light.waiting, found.light.ready, found.offered_per_s) == (None, None, None), "nobody looked"
    assert found.stage("heavy") is found.heavy


def test_counters_that_fell_count_as_nothing() -> None:
    assert counted({"offered": 50, "refused:deadline": 5}, {"offered": 3, "refused:deadline": 1}) == (0, Counter())
    assert counted({"offered": 1}, {"offered": 3, "refused:memory": 2}) == (2, Counter({"refused:memory": 2}))


# -- on a real server --------------------------------------------------------------------------------------------


@pytest.fixture
def history(broker: Broker) -> Iterator[History]:
    made = History(broker)
    yield made
    made.stop()


def drawn(broker: Broker, *ids: str) -> None:
    """Publish these and draw them light."""
    publish(broker, *ids)
    hand = hire(broker)
    for entry in hand.take(len(ids)):
        assert hand.end(entry) == 1
    hand.die()
    broker.reclaim()


def test_a_look_shows_queues_workers_and_what_was_offered(broker: Broker, history: History) -> None:
    put_plan(broker, PLAN)
    history.step()
    publish(broker, "a", "b", "c")
    light, loading = hire(broker), hire(broker, "heavy")
    broker.announce(
        "heavy", loading.name, {"node": "test", "slot": "1", "stage": "heavy", "ready": "0", "error": "full"}
    )
    (entry,) = light.take(1)
    publish(broker, "late", allowance_s=0.0)
    history.step()
    shown = history.snapshot()
    now = shown.moments[-1]
    assert (now.light.waiting, now.light.running, now.heavy.waiting) == (2, 1, 0)
    assert (now.light.wanted, now.light.ready, now.heavy.ready, now.heavy.loading) == (2, 1, 0, 0)
    assert (shown.tiles.offered, shown.tiles.refused, shown.tiles.why) == (4, 1, {"refused:allowance": 1})
    assert shown.tiles.on_time == 0, "whoever was refused counts"
    assert [mark.plan.version for mark in shown.marks] == [1]
    assert shown.plan == PLAN
    assert shown.open == 3
    slots = {(row.node, row.number): row for row in shown.fleet}
    assert slots["test", 0].planned == "light"
    assert [(row.stage, row.draws) for row in slots["test", 0].workers] == [("light", True)]
    assert [(row.ready, row.error) for row in slots["test", 1].workers] == [(False, "full")]
    light.end(entry)


def test_a_worker_on_its_way_is_loading_and_an_agent_shows_its_programs(broker: Broker, history: History) -> None:
    put_plan(broker, a_plan(assignment={"far:1": "heavy"}))
    broker.announce("heavy", "far-1-heavy-x", {"node": "far", "slot": "1", "stage": "heavy", "ready": "0"})
    broker.announce_node("far", {"name": "far", "slots": "2", "gpu": "a100-80g", "worker-1-heavy": "STARTING"})
    history.step()
    shown = history.snapshot()
    assert shown.moments[-1].heavy.loading == 1
    assert [(row.number, row.planned, dict(row.programs)) for row in shown.fleet] == [
        (0, None, {}),
        (1, "heavy", {"heavy": "STARTING"}),
    ]
    assert shown.fleet[0].gpu == "a100-80g"


def test_outcomes_enter_tiles_scores_and_the_newest_first(broker: Broker, history: History) -> None:
    history.step()
    drawn(broker, "a", "b", "c")
    history.step()
    shown = history.snapshot()
    assert [outcome.id for outcome in shown.latest] == ["c", "b", "a"]
    assert shown.scores == (0.75, 0.75, 0.75)
    assert (shown.tiles.ends["light"], shown.tiles.on_time) == (3, 1.0)
    assert shown.tiles.p50_s == pytest.approx(sorted(each.latency_s for each in outcomes(broker))[1])


def test_a_restart_shows_what_was_before(broker: Broker, history: History) -> None:
    put_plan(broker, PLAN)
    ids = [f"p{number}" for number in range(60)]
    drawn(broker, *ids)
    history.step()
    shown = history.snapshot(3600.0)
    assert [outcome.id for outcome in reversed(shown.latest)] == ids
    assert sum(each.ends_per_s["light"] for each in shown.moments) == pytest.approx(60)
    assert shown.tiles.ends["light"] == 60
    assert [mark.plan.version for mark in shown.marks] == [1]
    drawn(broker, "new")
    history.step()
    assert history.snapshot(3600.0).tiles.ends["light"] == 61, "each is counted once"


def test_a_start_reads_the_newest_and_no_more_than_it_can_bear(
    broker: Broker, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering, "SEED", AT_ONCE + 7)
    for number in range(AT_ONCE + 20):
        broker.client.xadd(broker.keys.done, {"id": str(number), "end": "light", "why": "x", "finished": "1.0"})
    broker.client.hset(broker.keys.totals, mapping={"offered": AT_ONCE + 20, "light": AT_ONCE + 20})
    history.step()
    assert [each.id for each in history.snapshot().latest[:2]] == [str(AT_ONCE + 19), str(AT_ONCE + 18)]
    assert len(history._outcomes) == AT_ONCE + 7
    assert len(history.snapshot(1e9).moments) == 1, "a time of the year 1970 makes no hour of moments"


def test_what_is_no_outcome_blinds_nobody(broker: Broker, history: History) -> None:
    history.step()
    broker.client.xadd(broker.keys.done, {"what": "is this"})
    broker.client.xadd(broker.keys.plans, {"version": "many"})
    drawn(broker, "a")
    history.step()
    assert [outcome.id for outcome in history.snapshot().latest] == ["a"]
    broker.client.xtrim(broker.keys.done, maxlen=1, approximate=False)


def test_dead_letters_are_shown_newest_first_and_go_when_purged(broker: Broker, history: History) -> None:
    publish(broker, "a", "b")
    hand = hire(broker)
    history.step()
    for entry in hand.take(2):
        hand.end(entry, "failed", "spoilt")
    history.step()
    shown = history.snapshot()
    assert (shown.dead, [letter.id for letter in shown.letters]) == (2, ["b", "a"])
    broker.purge_letters()
    history.step()
    shown = history.snapshot()
    assert (shown.dead, shown.letters) == (0, ())


def test_a_look_that_goes_wrong_is_the_trouble_until_one_goes_right(broker: Broker, history: History) -> None:
    assert history.snapshot().trouble
    history.step()
    assert not history.snapshot().trouble
    with spoilt(broker, broker.keys.done), pytest.raises(Exception, match="WRONGTYPE"):
        history.step()
    assert "WRONGTYPE" in history.snapshot().trouble
    assert history.snapshot().moments, "what is known is still shown"
    history.step()
    assert not history.snapshot().trouble


def test_one_look_is_computed_once_however_many_ask(history: History) -> None:
    history.step()
    assert history.snapshot(60.0) is history.snapshot(60.0)
    before = history.snapshot(60.0)
    history.step()
    assert history.snapshot(60.0) is not before


def test_the_thread_looks_by_itself_and_outlives_a_server(lasting_server: EmbeddedRedis) -> None:
    broker = Broker(Settings(redis_url=lasting_server.url, deployment="lasting"))
    broker.check()
    history = History(broker)
    history.start()
    try:
        wait_for(history, lambda shown: not shown.trouble)
        lasting_server.stop()
        wait_for(history, lambda shown: shown.trouble)
        lasting_server.start()
        drawn(broker, "after")
        wait_for(history, lambda shown: shown.latest and not shown.trouble)
    finally:
        history.stop()
    assert not any(each.name == "history" for each in threading.enumerate())


def test_a_thread_that_ended_by_a_bug_says_so(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def note(self, news: News) -> None:
            raise RuntimeError(f"a bug, with {len(news.outcomes)} outcomes")

        def away(self, trouble: str) -> None:
            pass

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    history = History(broker, [Broken()])
    history.start()
    wait_for(history, lambda shown: "log says why" in shown.trouble)


def wait_for(history: History, holds: Any, limit_s: float = 30.0) -> Snapshot:
    began = time.monotonic()
    while not holds(history.snapshot()):
        assert time.monotonic() - began < limit_s
        time.sleep(0.05)
    return history.snapshot()
