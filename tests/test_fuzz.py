"""A short run of what `make fuzz` does at length."""

from __future__ import annotations

from pathlib import Path

from shared.embedded import EmbeddedRedis
from tests.fuzz import fuzz


def test_made_up_requests_find_no_fault(oldest_server: EmbeddedRedis, tmp_path: Path) -> None:
    found = fuzz(oldest_server, tmp_path, examples=6, seed=1, phases="fuzzing")
    assert found.passed, found.said
    assert found.statuses[200] > 0 and found.statuses[202] > 0, "it draws, too"
    assert not [status for status in found.statuses if status >= 500]
