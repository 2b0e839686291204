"""Captions and pictures of the tiny cascade's scenes say the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.scenes import (
    COLOURS,
    GROUNDS,
    HARD_KINDS,
    KINDS,
    RADII,
    WORDS,
    Scene,
    caption,
    centre,
    draw,
    held_out_scenes,
    is_held_out,
    sample,
    training_scene,
)

ROOT = Path(__file__).parent.parent
Placed = tuple[str, str, str, tuple[int, int]]

# Written down once more, on purpose: what a caption means must not be read off the code that writes it.
CELLS = {"center": (1, 1), "top": (0, 1), "bottom": (2, 1), "left": (1, 0), "right": (1, 2)}
PAIRS = {
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
    "left of": ("left", "right"),
    "right of": ("right", "left"),
}
COUNTED = {"two": [(1, 0), (1, 2)], "three": [(0, 1), (2, 0), (2, 2)], "four": [(0, 0), (0, 2), (2, 0), (2, 2)]}


def scenes(count: int = 350) -> list[Scene]:
    rng, kinds = np.random.default_rng(7), KINDS | HARD_KINDS
    return [sample(rng, kind) for kind in kinds for _ in range(count // len(kinds))]


def understood(text: str) -> tuple[str, set[Placed]]:
    """Ground and placed things as a reader understands a caption; a colour of two words is that of two halves."""
    body, ground = text.rsplit(" on ", 1)
    if match := re.fullmatch(r"(two|three|four) (\w+) (\w+) (\w+?)(?:s|(?<=cross)es)", body):
        count, size, colour, shape = match.groups()
        return ground, {(size, colour, shape, cell) for cell in COUNTED[count]}
    look = r"(\w+ \w+ \w+(?: \w+)?)"
    related = re.compile(rf"{look} (above|below|left of|right of) {look}")
    found = [related.fullmatch(part) for part in body.split(" and ")]
    if all(found):
        looks = [zip(match.group(1, 3), PAIRS[match[2]], strict=True) for match in found if match]
        return ground, {(*_three(look), CELLS[place]) for pair in looks for look, place in pair}
    parts = [part.rsplit(" ", 1) for part in body.split(" and ")]
    return ground, {(*_three(look), CELLS[place]) for look, place in parts}


def _three(look: str) -> tuple[str, str, str]:
    size, *colours, shape = look.split()
    if size in COLOURS:  # four things are small, and no word is left to say so
        size, colours = "small", [size, *colours]
    return size, " ".join(colours), shape


def test_a_reader_of_the_caption_knows_the_scene() -> None:
    for scene in scenes():
        placed = {(t.size, f"{t.colour} {t.second}".strip(), t.shape, t.cell) for t in scene.things}
        assert understood(caption(scene)) == (scene.ground, placed)


def test_every_caption_has_few_enough_known_words_for_the_text_encoder() -> None:
    for scene in scenes():
        words = caption(scene).split()
        assert len(words) <= (16 if scene.kind in KINDS else 18)
        assert set(words) <= set(WORDS)


def test_each_thing_stands_in_its_colour_where_the_scene_has_it() -> None:
    for scene in scenes():
        picture = draw(scene)
        for thing in scene.things:
            row, column = centre(thing)
            inside = row + round(0.75 * RADII[thing.size]) if thing.shape == "ring" else row
            assert tuple(picture[inside, column - 1]) == COLOURS[thing.colour], caption(scene)
            assert tuple(picture[inside, column]) == COLOURS[thing.second or thing.colour], caption(scene)


def test_nothing_else_stands_there() -> None:
    """What is not ground lies within a thing's radius of its middle."""
    rows, columns = np.mgrid[:64, :64] + 0.5
    for scene in scenes():
        painted = (draw(scene) != GROUNDS[scene.ground]).any(axis=-1)
        for thing in scene.things:
            row, column = centre(thing)
            near = np.maximum(abs(rows - row), abs(columns - column)) < RADII[thing.size] + 0.6
            assert painted[near].any()
            painted &= ~near
        assert not painted.any(), caption(scene)


@pytest.mark.parametrize(("shape", "covered"), [("circle", 3.14), ("ring", 2.36), ("square", 2.96), ("cross", 2.2)])
def test_a_shape_covers_its_area(shape: str, covered: float) -> None:
    scene = next(s for s in scenes() if s.kind == "one" and s.things[0].shape == shape and s.things[0].size == "big")
    ground, colour = np.array(GROUNDS[scene.ground]), np.array(COLOURS[scene.things[0].colour])
    coverage = abs(draw(scene).astype(float) - ground).sum(axis=-1) / abs(colour - ground).sum()
    assert coverage.sum() / RADII["big"] ** 2 == pytest.approx(covered, rel=0.05)


def test_one_caption_in_ten_is_held_out_and_never_trained_on() -> None:
    rng = np.random.default_rng(0)
    captions = {caption(sample(rng, "three")) for _ in range(3000)}
    assert 0.08 < np.mean([is_held_out(text) for text in captions]) < 0.12
    assert not any(is_held_out(caption(training_scene(rng))) for _ in range(1000))


def test_held_out_scenes_are_distinct_repeatable_and_held_out() -> None:
    found = [caption(scene) for scene in held_out_scenes(300, seed=3)]
    assert len(set(found)) == len(found) == 300
    assert all(is_held_out(text) for text in found)
    assert found == [caption(scene) for scene in held_out_scenes(300, seed=3)]
    assert found != [caption(scene) for scene in held_out_scenes(300, seed=4)]


def test_the_published_kinds_come_alone_unless_the_hard_ones_are_asked_for() -> None:
    """Their figures stay comparable, and a publisher's captions those that the light model knows."""
    rng = np.random.default_rng(0)
    assert {sample(rng).kind for _ in range(300)} == {scene.kind for scene in held_out_scenes(300, 1)} == set(KINDS)
    hard = held_out_scenes(100, 1, HARD_KINDS)
    assert {scene.kind for scene in hard} == set(HARD_KINDS)
    assert all(is_held_out(caption(scene)) for scene in hard)


def test_captions_can_be_published_without_a_learning_library() -> None:
    code = "import sys, models.scenes; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
