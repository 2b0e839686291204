"""What is said of speed, in a row or in the environment, is checked where it is read."""

from __future__ import annotations

import pytest

from models.switches import UNCHANGED, Switches, parse, switches_of
from shared.errors import SettingsError
from shared.model import Model

MODEL = Model("m", "m", steps=6, guidance=3.0, size=64, memory_gib=0.1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chanels_last", "no switch 'chanels_last'"),
        ("guidance_until=2", "share of the steps"),
        ("guidance_until=x", "'x' is no value"),
        ("cached_features=0", "from 1"),
        ("compile=yes", "'yes' is no value"),
        ("compile,cached_features", "does not go together"),
    ],
)
def test_a_wrong_switch_is_one_clear_error(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"CASCADE_SPEED: speed: .*{said}"):
        switches_of(MODEL, "cpu", {"CASCADE_SPEED": text})


def test_the_environment_wins_over_the_row_and_the_row_over_the_default() -> None:
    row = Model("m", "m", steps=1, guidance=0.0, size=8, memory_gib=0.1, speed="channels_last")
    assert switches_of(row, "cuda", {}) == Switches(channels_last=True)
    assert switches_of(row, "cuda", {"CASCADE_SPEED": ""}) == Switches(channels_last=True)
    assert switches_of(row, "cuda", {"CASCADE_SPEED": "none"}) == Switches()
    assert switches_of(MODEL, "cuda", {}) == parse("default", "cuda")
    assert parse("default,compile", "cuda").names == parse("all", "cuda").names
    assert not set(parse("all", "cuda").names) - set(UNCHANGED), "what changes the picture must be asked for by name"
