"""Puts what was trained and measured where the project reads it: each folder in one move, never half of one."""

from __future__ import annotations

import shutil
from pathlib import Path

from models.tiny_training.stages import Run

FOLDERS = ("light", "heavy", "discriminator", "caption_discriminator", "attributes")
FILES = ("README.md", "deferral.png", "grid.png", "figures.json", "scores.csv", "trials.csv")


def publish(run: Run) -> None:
    """Replaces the folders and files of `run.out`, and `quality/<name>.csv` beside it."""
    run.out.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        replace_folder(run.built / name, run.out / name)
    for name in FILES:
        replace_file(run.work / name, run.out / name)
    replace_file(run.work / "quality.csv", run.out.parent / "quality" / f"{run.out.name}.csv")


def replace_folder(source: Path, target: Path) -> None:
    """A reader finds the old folder or the new one; between two renames, for a moment, none."""
    draft, old = target.with_name(f".{target.name}.draft"), target.with_name(f".{target.name}.old")
    for leftover in (draft, old):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(source, draft)
    if target.exists():
        target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def replace_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    shutil.copyfile(source, draft)
    draft.replace(target)
