"""The agent's decisions, as tables: what supervisor lists and what is asked of it."""

from __future__ import annotations

import pytest

from services.agent import Action, actions, wanted_programs
from shared.config import Resident, Settings
from shared.schema import Stage
from tests.helpers import a_plan

LIGHT, HEAVY = "worker-0-light", "worker-0-heavy"
START_LIGHT, START_HEAVY = Action("startProcess", LIGHT), Action("startProcess", HEAVY)
STOP_HEAVY = Action("stopProcess", HEAVY)

# why, state of light, state of heavy, wanted, retry of FATAL, what is asked
TABLE = [
    ("as it should be", "RUNNING", "STOPPED", {LIGHT}, True, []),
    ("started where it stopped", "STOPPED", "STOPPED", {LIGHT}, False, [START_LIGHT]),
    ("started where it ended", "EXITED", "STOPPED", {LIGHT}, False, [START_LIGHT]),
    ("both of a resident slot", "STOPPED", "EXITED", {LIGHT, HEAVY}, False, [START_HEAVY, START_LIGHT]),
    ("a start is waited for", "STARTING", "STOPPED", {LIGHT}, True, []),
    ("a stop is waited for", "STOPPING", "STOPPED", {LIGHT}, True, []),
    ("supervisor itself retries a backoff", "BACKOFF", "STOPPED", {LIGHT}, True, []),
    ("fatal is left while told so", "FATAL", "STOPPED", {LIGHT}, False, []),
    ("fatal is retried when told", "FATAL", "STOPPED", {LIGHT}, True, [START_LIGHT]),
    ("the old one first", "STOPPED", "RUNNING", {LIGHT}, True, [STOP_HEAVY]),
    ("a starting old one is stopped", "STOPPED", "STARTING", {LIGHT}, True, [STOP_HEAVY]),
    ("a failing old one is stopped", "STOPPED", "BACKOFF", {LIGHT}, True, [STOP_HEAVY]),
    ("the new one waits for the old", "STOPPED", "STOPPING", {LIGHT}, True, []),
    ("an unknown state holds the slot", "STOPPED", "UNKNOWN", {LIGHT}, True, []),
    ("a fatal old one holds nothing", "STOPPED", "FATAL", {LIGHT}, False, [START_LIGHT]),
    ("nothing wanted", "STOPPED", "RUNNING", set(), True, [STOP_HEAVY]),
]


@pytest.mark.parametrize(("why", "light", "heavy", "wanted", "retry", "asked"), TABLE, ids=[row[0] for row in TABLE])
def test_what_is_asked_of_supervisor(
    why: str, light: str, heavy: str, wanted: set[str], retry: bool, asked: list[Action]
) -> None:
    assert actions({LIGHT: light, HEAVY: heavy}, wanted, retry) == asked, why


def test_slots_do_not_wait_for_each_other_even_where_a_number_begins_another() -> None:
    listing = {LIGHT: "STOPPED", HEAVY: "STOPPED", "worker-1-light": "STOPPED", "worker-1-heavy": "STOPPED"}
    listing |= {"worker-10-light": "STOPPED", "worker-10-heavy": "STOPPING"}
    wanted = {LIGHT, "worker-1-light", "worker-10-light"}
    assert actions(listing, wanted, False) == [START_LIGHT, Action("startProcess", "worker-1-light")]


def test_a_program_that_supervisor_does_not_know_is_not_asked_for() -> None:
    assert actions({}, {LIGHT}, True) == []


@pytest.mark.parametrize(("stage", "expected"), [("light", LIGHT), ("heavy", HEAVY)])
def test_where_models_do_not_fit_together_the_plan_says_which_runs(stage: Stage, expected: str) -> None:
    settings = Settings(node="n", slots=2, resident=False)
    plan = a_plan(assignment={"n:0": stage, "other:1": "heavy"})
    assert wanted_programs(settings, plan, {}) == {expected, "worker-1-light"}


def test_without_a_plan_a_node_shows_itself() -> None:
    assert wanted_programs(Settings(node="n", slots=2, resident=False), None, {}) == {LIGHT, "worker-1-light"}


@pytest.mark.parametrize("resident", [True, "host", "auto"])
def test_where_both_fit_or_wait_in_host_memory_both_run_whatever_the_plan(resident: Resident) -> None:
    plan = a_plan(assignment={"n:0": "heavy"})
    assert wanted_programs(Settings(node="n", slots=1, resident=resident), plan, {}) == {LIGHT, HEAVY}


@pytest.mark.parametrize(
    ("light", "heavy", "kept"),
    [("STOPPED", "RUNNING", HEAVY), ("STARTING", "STOPPED", LIGHT), ("STOPPED", "EXITED", LIGHT)],
)
def test_what_runs_on_a_slot_that_the_plan_left_stays(light: str, heavy: str, kept: str) -> None:
    settings, listing = Settings(node="n", slots=1, resident=False), {LIGHT: light, HEAVY: heavy}
    assert wanted_programs(settings, a_plan(assignment={"other:0": "light"}), listing) == {kept}
