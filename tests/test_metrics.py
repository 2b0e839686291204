"""What Prometheus is told: it agrees with Redis, and every name in our rules and panels is one that it is told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
import yaml
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from deploy.supervision import ROOT
from services.gateway.metrics import install
from shared.broker import Broker
from shared.lookout import Lookout, Rounds
from shared.messages import Visit
from shared.metrics import Metrics
from shared.observer import Observer
from tests.helpers import a_plan, an_outcome, hire, put_plan, spoilt
from tests.helpers import publish as offer
from tests.processes import service, until
from tests.servers import free_port

DEPLOY: Final = ROOT / "deploy"
RULES: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
DASHBOARD: Final[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "dashboards" / "cascade.json").read_text())
PLAN: Final = a_plan(solver="highs", solve_ms=4.0, heavy_share=0.25, demand=9.0, assignment={"test:0": "light"})
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Samples:
    """Every sample by its name and labels; an error where Prometheus could not parse the text."""
    families = text_string_to_metric_families(text)
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for one in families for each in one.samples}


class Watched:
    """Metrics with the rounds that fill them."""

    def __init__(self, broker: Broker) -> None:
        self.metrics = Metrics()
        lookout = Lookout(broker)
        self.rounds = Rounds(lookout, [self.metrics], lookout.skip)
        self.rounds.step()

    def samples(self) -> Samples:
        self.rounds.step()
        return read(self.metrics.render().decode())


def busy(broker: Broker) -> None:
    """A little of everything: answers of both stages, one refused, one failed, one taken back that waits again."""
    put_plan(broker, PLAN)
    put_plan(broker, replace(PLAN, version=2, assignment={"test:0": "heavy"}))
    light, heavy = hire(broker), hire(broker, "heavy")
    offer(broker, "a", "b", "c", "lost", allowance_s=60.0)
    first, second, third, _ = light.take(4)
    light.end(first)
    light.escalate(second)
    light.end(third, "failed", "spoilt")
    heavy.end(heavy.one(), why="drawn")
    light.die()
    broker.reclaim()
    offer(broker, "refused", allowance_s=0.0)


def test_counters_and_gauges_say_what_redis_says(broker: Broker) -> None:
    watched = Watched(broker)
    busy(broker)
    found, totals = watched.samples(), Observer(broker).totals()
    assert found["cascade_offered_prompts_total", ()] == totals["offered"] == 5
    assert found["cascade_refused_prompts_total", (("why", "allowance"),)] == 1
    assert found["cascade_settled_prompts_total", (("end", "failed"), ("why", "spoilt"))] == 1
    assert found["cascade_settled_prompts_total", (("end", "heavy"), ("why", "drawn"))] == 1
    assert found["cascade_escalated_prompts_total", ()] == 1
    assert found["cascade_reclaimed_prompts_total", ()] == 1
    assert found["cascade_slot_switches_total", ()] == 1
    assert found["cascade_plans_total", ()] == 2
    assert found["cascade_waiting_prompts", (("stage", "light"),)] == 1
    assert found["cascade_running_prompts", (("stage", "light"),)] == 0
    assert found["cascade_workers", (("stage", "light"), ("state", "wanted"))] == 1
    assert found["cascade_workers", (("stage", "heavy"), ("state", "ready"))] == 1
    assert found["cascade_open_prompts", ()] == found["cascade_dead_letters", ()] == 1
    assert found["cascade_plan_version", ()] == 2
    assert found["cascade_plan_info", (("policy", "pinned"), ("solver", "highs"))] == 1
    assert found["cascade_picture_bytes", ()] == 4 * 5


def test_histograms_hold_the_waits_and_batches_of_the_outcomes(broker: Broker) -> None:
    watched = Watched(broker)
    busy(broker)
    found = watched.samples()
    assert found["cascade_answered_prompts_total", (("end", "heavy"), ("on_time", "true"))] == 1
    assert found["cascade_latency_seconds_count", (("end", "light"),)] == 1
    assert found["cascade_wait_seconds_count", (("stage", "light"),)] == 3
    assert found["cascade_service_seconds_sum", (("stage", "heavy"),)] == pytest.approx(0.5, abs=1e-3)
    assert found["cascade_score_count", ()] == 3
    assert found["cascade_plan_solve_seconds_count", ()] == 2
    assert watched.samples()["cascade_score_count", ()] == 3, "each outcome is counted once"


def test_what_ended_before_an_exporter_began_is_not_told_as_if_it_ended_now(broker: Broker) -> None:
    busy(broker)
    found = Watched(broker).samples()
    assert found["cascade_score_count", ()] == 0
    assert found["cascade_plan_solve_seconds_count", ()] == 0
    assert found["cascade_offered_prompts_total", ()] == 5, "counted in Redis, whoever looks"


def test_a_batch_is_counted_once_though_each_of_its_prompts_tells_of_it(broker: Broker) -> None:
    watched = Watched(broker)
    heavy = (Visit("light", "n-0-light-x", 8.0, 8.5, 2, 0.2), Visit("heavy", "n-1-heavy-x", 9.0, 10.0, 4))
    for outcome in (an_outcome(1), an_outcome(2), an_outcome(3, "heavy", "drawn", visits=heavy)):
        watched.metrics._note(outcome)
    found = watched.samples()
    assert found["cascade_batch_prompts_count", (("stage", "light"),)] == 2
    assert found["cascade_batch_prompts_sum", (("stage", "heavy"),)] == 4
    assert found["cascade_wait_seconds_sum", (("stage", "heavy"),)] == 0.5


def test_away_is_told_and_nothing_stale_beside_it(broker: Broker) -> None:
    watched = Watched(broker)
    assert watched.samples()["cascade_redis_up", ()] == 1
    with spoilt(broker, broker.keys.done), pytest.raises(Exception, match="WRONGTYPE"):
        watched.rounds.step()
    found = read(watched.metrics.render().decode())
    assert found["cascade_redis_up", ()] == 0
    assert not [name for name, _ in found if name in ("cascade_waiting_prompts", "cascade_offered_prompts_total")]


# -- who serves it -----------------------------------------------------------------------------------------------


@pytest.fixture
def app(broker: Broker) -> Iterator[FastAPI]:
    made = FastAPI()
    history = install(made, broker.settings)
    history.step()
    yield made
    history.stop()


def test_the_gateway_answers_in_prometheus_own_format(broker: Broker, app: FastAPI) -> None:
    offer(broker, "a")
    app.state.history.step()
    said = TestClient(app).get("/metrics")
    assert said.headers["content-type"].startswith("text/plain; version=")
    assert read(said.text)["cascade_open_prompts", ()] == 1


def test_the_exporter_serves_the_same_alone(broker: Broker) -> None:
    busy(broker)
    port = free_port()
    with service(broker.settings, "exporter", "--port", str(port)) as process:

        def scraped() -> Samples:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                return read(answer.read().decode())

        def answers() -> bool:
            try:
                return scraped()["cascade_redis_up", ()] == 1
            except OSError:
                return False

        until(lambda: answers() or process.poll() is not None, "the exporter answers")
        assert scraped()["cascade_offered_prompts_total", ()] == 5
        process.terminate()
        assert process.wait(timeout=120) == 0


# -- who asks for it ---------------------------------------------------------------------------------------------


def expressions() -> Iterator[tuple[str, str]]:
    """Where and what: each expression of the rules and of the dashboard."""
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield rule.get("record") or rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for query in re.findall(r"^ *query: (.*)$", (DEPLOY / "README.md").read_text(), re.MULTILINE):
        yield "the scaler's query", query


RECORDED: Final = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}


def test_every_name_and_label_that_is_asked_for_is_told(broker: Broker) -> None:
    watched = Watched(broker)
    busy(broker)
    labels: dict[str, set[str]] = {}
    for name, pairs in watched.samples():
        labels.setdefault(name, set()).update(label for label, _ in pairs)
    asked = list(expressions())
    assert len(asked) > 30
    for place, text in asked:
        names = re.findall(r"\bcascade[\w:]*", re.sub(r'"[^"]*"', "", text))
        assert names or "up{" in text, place
        assert not set(names) - labels.keys() - RECORDED, place
        for name, chosen in re.findall(r"\b(cascade_\w+)\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+)\s*=", chosen)) <= labels[name], place
        assert [text.count(bracket) for bracket in "({["] == [text.count(bracket) for bracket in ")}]"], place


@pytest.mark.parametrize("words", ["check config prometheus.yml", "test rules rules_test.yml"])
def test_prometheus_itself_accepts_the_rules_and_fires_where_something_is_wrong(words: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    said = subprocess.run(
        [promtool, *words.split()], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr


def sides(expression: str) -> Iterator[str]:
    """The labels of each side of a comparison that is no mere number: those an aggregation keeps, or all."""
    for side in re.split(r"\s(?:==|[<>]=?|[-+/])\s", expression):
        bare = re.sub(r"^[\d.]+ \* ", "", side.strip())
        if re.match(r"[\d.]|scalar\(", bare):
            continue
        kept = re.match(r"(?:sum|max|min|count)(?: by \(([^)]*)\))?\s*\(", bare)
        yield (kept[1] or "none") if kept else "all"


def test_both_sides_of_an_alert_carry_the_same_labels() -> None:
    assert list(sides("increase(a[1m]) > 4 * sum(b)")) == ["all", "none"], "which finds nothing to compare"
    alerts = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
    for rule in alerts:
        assert len(set(sides(rule["expr"]))) == 1, rule["alert"]


def test_each_alert_is_tried_on_figures_made_up() -> None:
    wrong, _ = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yml").read_text())["tests"]
    tried = {each["labels"] for each in wrong["promql_expr_test"][0]["exp_samples"]}
    alerts = {rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
    assert tried == {f'{{alertname="{name}"}}' for name in alerts}


def test_alerts_say_what_is_wrong_and_how_bad() -> None:
    alerts = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) >= 8
    for rule in alerts:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"].endswith(".")


def test_the_dashboard_stands_on_the_provisioned_source_and_its_panels_do_not_overlap() -> None:
    source = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())
    uid = source["datasources"][0]["uid"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {uid}
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_composed_observers_read_these_files() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["observe"], "nobody starts them by accident"
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
        folders = [volume.split(":")[0] for volume in services[name]["volumes"] if volume.startswith("./")]
        assert folders
        assert all((ROOT / each).is_dir() for each in folders)
