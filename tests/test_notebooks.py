"""The notebooks run from the first cell to the last on a short trace, and are committed without output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "analysis" / "notebooks").glob("*.ipynb"))
# What each must have shown at its end, so that a notebook of empty cells is no pass.
SHOWN = {
    "comparison": (4, ("diffserve", "clipper-heavy", "bound, 5% spare")),
    "one_run": (1, ("heavy share", "confident", "kept light for want of time")),
    "what_if": (1, ("What if", "8 s")),
}


def short_trace(folder: Path) -> Path:
    """Four prompts a second for twenty seconds, with a burst in the middle that two GPUs cannot draw heavy."""
    times = sorted([0.25 * number for number in range(80)] + [10 + 0.05 * number for number in range(40)])
    path = folder / "short.csv"
    path.write_text("arrival_s\n" + "".join(f"{time:.3f}\n" for time in times))
    return path


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def texts(cell: Any) -> str:
    return "".join(output.get("text", "") + str(output.get("data", {})) for output in cell.get("outputs", ()))


def test_there_is_a_notebook_for_each_question() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_output(path: Path) -> None:
    cells = read(path).cells
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_its_figures(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTEBOOK_TRACE", str(short_trace(tmp_path)))
    monkeypatch.setenv("NOTEBOOK_GPUS", "4")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = read(path)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(book, timeout=120, kernel_name="python3", resources=resources).execute()
    drawings, words = SHOWN[path.stem]
    shown = "".join(texts(cell) for cell in book.cells if cell.cell_type == "code")
    assert shown.count("image/svg+xml") == drawings
    assert not [word for word in words if word not in shown]
