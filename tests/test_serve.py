"""`make serve`: one command, one address, and nothing left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from deploy.serve import address, check_free
from deploy.supervision import ROOT
from shared.config import Settings
from shared.errors import CascadeError
from shared.process import die_with_parent
from tests.servers import free_port

PATIENCE_S = 180.0


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


def test_serve_answers_at_the_address_it_prints_and_leaves_nothing_running(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "deploy.serve", "--port", str(port), "--slots", "1", "--backend", "sleeping"]
    said = tmp_path / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path / "run")],
            cwd=ROOT,
            stdout=out,
            stderr=out,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            preexec_fn=die_with_parent,
        )
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
        while url not in said.read_text():
            assert process.poll() is None and time.monotonic() < end, said.read_text()
            time.sleep(0.1)
        job = httpx.post(f"{url}/v1/jobs", json={"prompt": "a cat", "quality": "low", "deadline_s": 60}).json()
        told = httpx.get(f"{url}/v1/jobs/{job['id']}/events", timeout=PATIENCE_S).text
        assert '"state":"light"' in told
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 7, "Redis, supervisord, control, keeper, agent, gateway and a worker"
        process.send_signal(signal.SIGINT)
        process.wait(60)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
    finally:
        process.kill()
        process.wait()
