"""`make serve`: one command, one address, and nothing left running. The README's snippets run as they are printed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from deploy.results import new_folder
from deploy.runner import Deployment, Run
from deploy.serve import address, check_free, check_sound, greeting, wait_complete
from deploy.supervision import ROOT, Supervisord
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.errors import CascadeError, SettingsError
from shared.schema import Stage
from tests.conftest import fresh_deployment
from tests.processes import from_a_terminal
from tests.servers import free_port
from tests.test_readme import block

pytestmark = pytest.mark.live

PATIENCE_S = 240.0
LOGS = "run:a:"  # no letter in a square
README_URL = "http://127.0.0.1:8000"


def test_the_address_is_one_that_a_browser_takes() -> None:
    assert address(Settings(http_port=8017)) == "http://127.0.0.1:8017"
    assert address(Settings(http_host="0.0.0.0", http_port=80)) == "http://127.0.0.1:80"
    assert address(Settings(http_host="::1", http_port=80)) == "http://[::1]:80"


def test_a_port_that_is_taken_is_named_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CascadeError, match=f"{port}.*another"):
            check_free(Settings(http_port=port))
    check_free(Settings(http_port=free_port()))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cascade": "nope"}, "nope"),
        ({"http_host": "0.0.0.0"}, "anybody could draw here"),
        ({"http_keys": Path("absent.toml")}, "absent.toml"),
    ],
)
def test_what_cannot_go_well_is_said_before_anything_starts(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_sound(Settings(**given))


def test_the_greeting_sends_a_key_where_keys_are_asked_for(tmp_path: Path) -> None:
    assert "Bearer" in greeting(Settings(http_keys=tmp_path / "keys.toml"))
    assert "Bearer" not in greeting(Settings())


@pytest.fixture
def running(tmp_path: Path, oldest_server: EmbeddedRedis) -> Iterator[Deployment]:
    """A deployment of one slot without any service, beside a supervisord that has nothing to run."""
    file = tmp_path / "supervisord.conf"
    file.write_text(f"[supervisord]\nnodaemon=true\nlogfile={tmp_path}/log\npidfile={tmp_path}/pid\n")
    for broker in fresh_deployment(oldest_server):
        settings = broker.settings.model_copy(update={"slots": 1, "lease_s": 60.0, "log_dir": tmp_path})
        with Supervisord(file) as supervisord:
            yield Deployment(Run(tmp_path, settings, tmp_path), settings, oldest_server, supervisord)


def announce(running: Deployment, stage: Stage, attempt: int = 1, **about: str) -> None:
    said = {"node": "test", "slot": "0", "stage": stage, "ready": "0", "error": "", **about}
    running.broker.announce(stage, f"test-0-{stage}-{attempt}", said)


def test_a_second_model_that_does_not_load_is_said_at_each_look_until_patience_ends(running: Deployment) -> None:
    said: list[str] = []
    announce(running, "light", ready="1")
    announce(running, "heavy", error="no weights")
    wait_complete(running, said.append, patience_s=1.0)
    wrong = "workers ready: light 1 of 1, heavy 0 of 1; the heavy model does not load: no weights"
    assert len(said) > 2 and set(said[:-1]) == {wrong}
    assert said[-1] == f"{wrong}; waited 1 s for all, see {running.settings.log_dir}"


def test_a_model_that_loads_at_the_second_attempt_is_no_longer_said_to_fail(running: Deployment) -> None:
    said: list[str] = []

    def say(words: str) -> None:
        said.append(words)
        if len(said) == 1:
            announce(running, "heavy")  # between two attempts
        if len(said) == 3:
            announce(running, "heavy", error="no weights")
            announce(running, "heavy", 2, ready="1")

    announce(running, "light", ready="1")
    announce(running, "heavy", error="no weights")
    wait_complete(running, say)
    wrong = "workers ready: light 1 of 1, heavy 0 of 1; the heavy model does not load: no weights"
    assert said == [wrong, wrong, wrong, "workers ready: light 1 of 1, heavy 1 of 1"]


def test_the_second_start_in_a_second_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [new_folder("serve") for _ in range(3)]
    assert len(set(made)) == 3 and sorted(Path("logs").iterdir()) == made
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    Path("logs").write_text("")
    with pytest.raises(SettingsError, match="logs/demo-"):
        new_folder("demo")


@dataclass(frozen=True)
class Served:
    """A running `make serve`: its process, its address, and all it said."""

    process: subprocess.Popen[bytes]
    url: str
    said: str


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """The tiny cascade on one slot, ready."""
    port, told = free_port(), folder / "said"
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "deploy.serve", "--port", str(port), "--slots", "1", "--out", str(folder / LOGS)]
    environment = os.environ | {"FORCE_COLOR": "1"}  # makes no terminal of a file
    with told.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=out, preexec_fn=from_a_terminal
        )
    try:
        end = time.monotonic() + PATIENCE_S
        while "Ctrl-C" not in told.read_text():
            assert process.poll() is None and time.monotonic() < end, told.read_text()
            time.sleep(0.1)
        yield Served(process, url, told.read_text())
    finally:
        process.kill()
        process.wait()


def shell(lines: str, folder: Path) -> str:
    """What a shell in an empty folder prints; the tests' interpreter stands in the place of the printed one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CASCADE_", "REDIS_URL"))}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines.replace(".venv/bin/python", sys.executable)],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    ).stdout


def size(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as opened:
        opened.load()
        return opened.size


def test_what_serve_and_the_readme_print_draws_pictures_and_nothing_is_left_running(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        before = served.said.partition("Ready: ")[0]
        assert "workers ready: light 0 of 1, heavy 0 of 1; waiting for the " in before, "it says what it waits for"
        assert re.search(r"^ *\d+ s  workers ready: light 1 of 1, heavy [01] of 1$", before, re.MULTILINE), before
        assert f"/{LOGS}/processes" in served.said and "\x1b" not in served.said
        curl = "\n".join(block("curl")).replace(README_URL, served.url)
        assert curl in served.said, "one line, whole, as the README has it"
        shell(curl, tmp_path)
        assert size(tmp_path / "picture.webp") == (64, 64)
        snippet = "\n".join(block("openai")).replace(README_URL, served.url)
        shell(f".venv/bin/python - <<'END'\n{snippet}\nEND\n", tmp_path)
        assert size(tmp_path / "image_generation.completed.webp") == (64, 64)
        inside = [line for line in served.said.splitlines() if line.startswith(("export ", ".venv/bin/python"))]
        assert "draws" in shell("\n".join(inside), tmp_path)
        family = psutil.Process(served.process.pid).children(recursive=True)
        assert len(family) >= 7, "Redis, supervisord, control, keeper, agent, gateway and a worker"
        served.process.send_signal(signal.SIGINT)
        served.process.wait(150)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive
