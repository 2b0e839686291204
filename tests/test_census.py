"""Which slots are planned for, where another cascade's models or models that swap are among them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from planner.drafting import Setup
from planner.policies import make_policy
from planner.solvers import make_solver
from services.agent import Agent, Supervisor
from services.control import Control
from services.doctor.server import of_cascade
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.census import Planned, census, in_words
from shared.config import Resident, Settings
from shared.observer import Observer
from shared.plans import Slot
from shared.schema import STAGES, Stage
from tests.processes import settings_for, worker
from tests.test_ctl import ctl
from tests.test_turns import measured

logger = logging.getLogger("test")
TINY, SDTURBO = load_cascade("tiny"), load_cascade("sdturbo")
OURS: dict[Stage, str] = {stage: model.name for stage, model in TINY.models.items()}
THEIRS: dict[Stage, str] = {stage: model.name for stage, model in SDTURBO.models.items()}
PLANNED = Planned("tiny", OURS)
BOTH: tuple[Stage, ...] = ("light", "heavy")


def about(node: str, stage: Stage, model: str = "", **more: str) -> dict[str, str]:
    return {"node": node, "slot": "0", "gpu": "cpu", "stage": stage, "ready": "1", "model": model, **more}


def both(node: str, models: dict[Stage, str], **more: str) -> list[dict[str, str]]:
    return [about(node, stage, models[stage], **more) for stage in STAGES]


# --- another cascade ---------------------------------------------------------------------------------------------


def test_a_slot_of_another_cascade_does_not_count_and_is_named() -> None:
    found = census([*both("ours", OURS), *both("theirs", THEIRS)], {}, (), OURS)
    assert found.slots == (Slot("ours", 0, "cpu", BOTH),)
    assert found.strangers == {"theirs:0": tuple(sorted(THEIRS.values()))}
    assert len(census(both("theirs", THEIRS), {}, ()).slots) == 1, "who asks for no models gets all"


def test_one_strange_model_of_two_is_enough_and_so_is_one_that_loads() -> None:
    mixed = [about("n", "light", THEIRS["light"], ready="0"), about("n", "heavy", OURS["heavy"])]
    assert census(mixed, {}, (), OURS).slots == ()


def test_a_node_whose_agent_would_load_another_cascade_does_not_count() -> None:
    nodes = {"n": {"name": "n", "resident": "0", "gpu": "cpu", "worker-0-light": "STOPPED"}}
    assert census([], nodes, [("n", 0)], OURS).slots == (Slot("n", 0, "cpu", BOTH, False),), "an older one says nothing"
    told = {"n": nodes["n"] | {f"model:{stage}": name for stage, name in THEIRS.items()}}
    found = census([], told, [("n", 0)], OURS)
    assert (found.slots, list(found.strangers)) == ((), ["n"])


def test_weights_of_chance_and_workers_that_name_no_model_are_taken_for_ours() -> None:
    chance: dict[Stage, str] = {stage: model.name for stage, model in TINY.at_random().models.items()}
    found = census([*both("chance", chance), about("older", "light")], {}, (), OURS)
    assert [slot.node for slot in found.slots] == ["chance", "older"]
    assert not found.strangers


def test_an_agent_says_which_models_its_workers_load(broker: Broker, tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "none.sock")
    supervisor.listing = lambda: dict.fromkeys(("worker-0-light", "worker-0-heavy"), "RUNNING")  # type: ignore[method-assign]
    Agent(broker.settings, supervisor, logger, THEIRS).step()
    told = Observer(broker).nodes([broker.settings.node])[broker.settings.node]
    assert {stage: told[f"model:{stage}"] for stage in STAGES} == THEIRS


def test_control_plans_without_them_and_says_so_once(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    for each in [*both("ours", OURS), *both("theirs", THEIRS)]:
        broker.announce("light" if each["stage"] == "light" else "heavy", f"{each['node']}-0-{each['stage']}-1", each)
    settings = broker.settings.model_copy(update={"plan_period_s": 0.001})
    control = Control(settings, TINY, make_policy("clipper-light", TINY, 5.0), logger)
    for _ in range(4):
        control.step()
        control._next_look = 0.0
    plan = broker.plan()
    assert plan is not None and {name.partition(":")[0] for name in plan.assignment} == {"ours"}
    said = [vars(record)["reason"] for record in caplog.records if record.message == "left out of the plan"]
    assert said == [in_words({"theirs:0": tuple(sorted(THEIRS.values()))}, PLANNED)]
    assert Observer(broker).planned_for() == PLANNED
    shown = ctl(broker, "status", "--once").stdout
    assert shown.count("theirs: started with another cascade's") == 1
    assert "the planner's is tiny (tiny-light, tiny-heavy)" in shown.replace("\n", " ")
    control.leave()
    assert Observer(broker).planned_for() is None


def test_a_slot_that_comes_back_with_ours_is_said_again_when_it_leaves_again(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    control = Control(broker.settings, TINY, make_policy("clipper-light", TINY, 5.0), logger)
    for models in (THEIRS, OURS, THEIRS):
        broker.announce("light", "n-0-light-1", about("n", "light", models["light"]))
        control.step()
        control._next_look = 0.0
    control.leave()
    assert [record.message for record in caplog.records].count("left out of the plan") == 2


@pytest.mark.parametrize("token", [None, b"", b"0f3a", b"[1]", b'{"cascade": "tiny"}'])
def test_an_older_planner_does_not_say_its_cascade(token: bytes | None) -> None:
    assert Planned.of_token(token) is None


def test_the_doctor_has_one_line_for_it() -> None:
    assert of_cascade(PLANNED, PLANNED, {}).level == "ok"
    strange = {f"gpu-{number}:0": ("sd-turbo",) for number in range(5)}
    node, here = of_cascade(PLANNED, PLANNED, strange), of_cascade(Planned("sdturbo", THEIRS), PLANNED, strange)
    assert (node.level, here.level) == ("wrong", "wrong")
    assert "gpu-0, gpu-1, gpu-2 and 2 more" in node.words and "the same CASCADE" in node.words
    assert "this machine is told sdturbo" in here.words and "the planner's is tiny" in here.words


# --- where models stay -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "resident"),
    [(("1", "1"), True), (("host", "host"), "host"), (("1", "host"), "host"), (("0", ""), False), (("", "x"), None)],
)
def test_a_slot_says_where_its_models_stay_and_the_slower_counts(
    told: tuple[str, str], resident: Resident | None
) -> None:
    workers = [about("n", stage, resident=each) for stage, each in zip(STAGES, told, strict=True)]
    assert census(workers, {}, ()).slots == (Slot("n", 0, "cpu", BOTH, resident),)


def test_the_planner_takes_the_cost_of_a_turn_from_what_the_workers_do() -> None:
    cascade = measured(load_s=20.0, swap_s=4.0)
    setup = Setup(cascade, 5.0, make_solver("exhaustive"), 3.0)  # told nothing: as where models stay
    kinds: tuple[Resident | None, ...] = (None, True, "host", False)
    dwells = [setup.dwell_on([Slot("n", 0, cascade.gpu, BOTH, resident)]) for resident in kinds]
    assert dwells == [3.0, 3.0, 8.0, 40.0]
    mixed = [Slot("n", 0, cascade.gpu, BOTH, True), Slot("n", 1, cascade.gpu, BOTH, "host")]
    assert setup.dwell_on(mixed) == 8.0


@pytest.mark.live
@pytest.mark.parametrize(("resident", "told"), [(True, "1"), ("host", "host"), ("auto", "1"), (False, "0")])
def test_a_worker_says_what_it_does(broker: Broker, resident: Resident, told: str) -> None:
    settings: Settings = settings_for(broker, backend="sleeping", resident=resident)
    with worker(settings):
        (found,) = Observer(broker).workers()
    assert found["resident"] == told
