"""Fetching: what is kept is what was published, wholly or not at all, and what could not be had is said."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from traces import fetch as command
from traces import published, read
from traces.published import DATASETS, find
from traces.read import TraceError

HELD = {name: f"the bytes of {name}\n".encode() for name in ("1to8qps", "4to32qps", "prompts")}


@pytest.fixture
def nothing_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without published data; returns where stand-ins go."""
    monkeypatch.delenv("CASCADE_DATA", raising=False)
    monkeypatch.setattr(read, "PUBLISHED_FOLDER", tmp_path / "published")
    return tmp_path / "stand-ins"


@pytest.fixture
def three_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published files, in the place of which are a few bytes of our own with their checksums."""
    table = {name: replace(DATASETS[name], sha256=hashlib.sha256(held).hexdigest()) for name, held in HELD.items()}
    for module in (published, command):
        monkeypatch.setattr(module, "DATASETS", table)


class Artifact:
    """The artifact's repository, on this machine: what it answers to each path, and what was asked."""

    def __init__(self) -> None:
        self.files = {f"/{DATASETS[name].source}": held for name, held in HELD.items()}
        self.cut_short: set[str] = set()
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                content = outer.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:5] if self.path in outer.cut_short else content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def artifact(nothing_at_hand: Path, three_files: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Artifact]:  # noqa: ARG001
    monkeypatch.setattr(command, "stand_ins", lambda _: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Artifact()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def fetched(artifact: Artifact, folder: Path, *names: str) -> int:
    return command.main(["--from", artifact.url, "--into", str(folder), *names])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_fetched_is_kept_in_the_layout_of_the_data_folder(artifact: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    assert fetched(artifact, folder) == 0
    assert (folder / "diffserve/traces/trace_4to32qps.txt").read_bytes() == HELD["4to32qps"]
    assert set(files(folder).values()) == set(HELD.values())
    assert len(files(folder)) == len(HELD), "and nothing beside them"
    assert artifact.asked[1] == "/traces/maf/sdturbo_sdv15_dynamic_testbed/trace_4to32qps.txt"
    assert find("4to32qps") == (folder / "diffserve/traces/trace_4to32qps.txt", False)


def test_what_is_there_is_not_fetched_again_and_what_is_spoilt_is(artifact: Artifact, tmp_path: Path) -> None:
    assert fetched(artifact, tmp_path) == 0
    (tmp_path / DATASETS["1to8qps"].path).write_bytes(b"half a fi")
    assert len(artifact.asked) == 3
    assert fetched(artifact, tmp_path) == 0
    assert artifact.asked[3:] == ["/" + DATASETS["1to8qps"].source]
    assert (tmp_path / DATASETS["1to8qps"].path).read_bytes() == HELD["1to8qps"]


@pytest.mark.parametrize("trouble", ["wrong checksum", "not there", "broken off"])
def test_one_file_that_cannot_be_had_leaves_nothing_and_the_others_come(
    trouble: str, artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = "/" + DATASETS["4to32qps"].source
    said = {"wrong checksum": "SHA-256", "not there": "404", "broken off": "broken off after 5 of 22 bytes"}[trouble]
    if trouble == "not there":
        del artifact.files[place]
    elif trouble == "broken off":
        artifact.cut_short.add(place)
    else:
        artifact.files[place] = b"other bytes"
    folder = tmp_path / "published"
    assert fetched(artifact, folder) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"4to32qps: {artifact.url}traces/maf/")
    assert said in line
    assert sorted(files(folder)) == ["prompts_diffusiondb_5k.txt", "trace_1to8qps.txt"]
    assert fetched(artifact, folder, "prompts") == 0


def test_where_nobody_answers_it_is_tried_once(
    artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact.server.shutdown()
    artifact.server.server_close()
    assert fetched(artifact, tmp_path / "published") == 2
    lines = capsys.readouterr().err.splitlines()
    assert "Connection refused" in lines[0]
    assert [line.split(": ", 1)[1] for line in lines[1:]] == ["not tried, for nobody answers"] * 2
    assert not (tmp_path / "published").exists()


def test_the_folder_of_data_comes_before_the_network(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name in ("1to8qps", "4to32qps"):
        path = data / DATASETS[name].path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(HELD[name])
    path.write_bytes(b"spoilt")
    monkeypatch.setenv("CASCADE_DATA", str(data))
    assert fetched(artifact, tmp_path / "published") == 2
    assert capsys.readouterr().err.startswith(f"4to32qps: {path}: SHA-256")
    assert artifact.asked == ["/" + DATASETS["prompts"].source]
    assert files(tmp_path / "published")["trace_1to8qps.txt"] == HELD["1to8qps"]
    with pytest.raises(TraceError, match=f"{path}: SHA-256"):
        find("4to32qps")


def test_a_folder_that_cannot_be_written_is_named(
    artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert fetched(artifact, tmp_path / "file") == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_an_unknown_name_is_said_before_anything_is_fetched(
    artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetched(artifact, tmp_path / "published", "prompts", "4to64qps") == 2
    assert capsys.readouterr().err.startswith("4to64qps: no such published file; there are 1to8qps")
    assert not artifact.asked


def test_the_list_says_what_there_is_and_where(
    artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetched(artifact, tmp_path, "prompts") == 0
    asked = len(artifact.asked)
    assert fetched(artifact, tmp_path, "--list") == 0
    said = capsys.readouterr().out
    assert "1to8qps         not here" in said
    assert f"prompts         {tmp_path / DATASETS['prompts'].path}" in said
    assert len(artifact.asked) == asked


def test_fetching_without_a_network_says_what_stands_in(
    nothing_at_hand: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "stand_in", lambda name: published.stand_in(name, nothing_at_hand))
    assert command.main(["--from", "file:///nowhere", "4to32qps", "scores_sdxs"]) == 2
    heard = capsys.readouterr()
    assert heard.out == f"4to32qps: {nothing_at_hand}/4to32qps-stand-in.csv stands in, made and not published\n"
    assert [line.split(":")[0] for line in heard.err.splitlines()] == ["4to32qps", "scores_sdxs"]
