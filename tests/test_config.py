"""Settings: command line over environment over file over default; a wrong one is a line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.config import Settings, load, parser
from shared.errors import SettingsError

NAMES = ["redis_url", "deployment", "lease_s", "slots"]


def gathered(command: str, environment: dict[str, str]) -> Settings:
    return load(parser("test", NAMES).parse_args(command.split()), environment)


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('deployment = "file"\nslots = 3\nredis_url = "redis://file"\n')
    environment = {"CASCADE_DEPLOYMENT": "environment", "CASCADE_SLOTS": "4", "REDIS_URL": "redis://environment"}
    found = gathered(f"--config {path} --slots 5", environment)
    assert (found.slots, found.deployment, found.redis_url) == (5, "environment", "redis://environment")
    assert gathered(f"--config {path}", {}).deployment == "file"
    assert gathered("", {}) == Settings()


WRONG = [
    ({"CASCADE_SLOTS": "none"}, "slots"),
    ({"CASCADE_LEASE_S": "-1"}, "lease_s"),
    ({"CASCADE_DEPLOYMENT": "{x}"}, "deployment"),
    ({"CASCADE_SOLVER": "oracle"}, "solver"),
    ({"CASCADE_DEADLINE_S": "5", "CASCADE_LEASE_S": "2.1"}, "lease_s"),
]


@pytest.mark.parametrize(("environment", "name"), WRONG)
def test_a_wrong_setting_is_one_line_that_names_it(environment: dict[str, str], name: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        load(None, environment)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("slots = = 3")
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("sltos = 3")
    for path, text in ((tmp_path / "absent.toml", "absent"), (broken, "broken"), (unknown, "sltos")):
        with pytest.raises(SettingsError, match=text):
            gathered(f"--config {path}", {})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().slots = 2  # type: ignore[misc]


def test_a_lease_leaves_time_to_draw_again_by_the_deadline() -> None:
    assert Settings(deadline_s=5.0, lease_s=2.0).lease_s == 2.0
    with pytest.raises(ValidationError, match="at most"):
        Settings(deadline_s=4.9, lease_s=2.0)
