"""What the catalogue says may not be drawn, and which sizes may: how it is read, and what it finds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shared.blocklist import blocked_phrase
from shared.catalog import TABLES, Cascade, unmeasured
from shared.errors import SettingsError
from shared.sizes import asked_size, measures
from tests.helpers import job

PHRASES = ("gore", "Naked   Person", "裸体", "naïve art", "が")
FOUND = [
    ("a field of GORE", "gore"),
    ("gore!", "gore"),
    ("a naked, person on a beach", "Naked   Person"),
    ("naked_person", "Naked   Person"),
    ("g\u200bo\u00adr\u0301e", "gore"),
    ("\uff47\uff4f\uff52\uff45", "gore"),
    ("一个裸体的人", "裸体"),
    ("NAIVE ART of a cat", "naïve art"),
    ("a gorefest in Angora", None),
    ("a person, naked", None),
    ("裸の体か", None),
    ("", None),
    ("naked", None),
]


@pytest.mark.parametrize(("prompt", "phrase"), FOUND)
def test_whole_words_are_found_however_they_are_written(prompt: str, phrase: str | None) -> None:
    assert blocked_phrase(prompt, PHRASES) == phrase
    assert blocked_phrase(prompt, ()) is None


def catalogue(tmp_path: Path, row: str = "", model: str = "") -> Cascade:
    """The tiny cascade with more in its row, and in its light model's."""
    shutil.copy(TABLES / "catalog.toml", tmp_path)
    path = tmp_path / "catalog.toml"
    text = path.read_text().replace("[cascades.tiny]\n", f"[cascades.tiny]\n{row}\n")
    path.write_text(text.replace("[models.tiny-light]\n", f"[models.tiny-light]\n{model}\n"))
    return unmeasured("tiny", tmp_path)


def test_phrases_stand_in_the_row_or_in_a_file_beside_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "blocked.txt").write_text("# remarks\ngore\n\n  naked person  \n")
    assert catalogue(tmp_path).blocked == ()
    assert catalogue(tmp_path, 'blocked = ["gore", "#1"]').blocked == ("gore", "#1")
    assert catalogue(tmp_path, 'blocked = "blocked.txt"').blocked == ("gore", "naked person")


WRONG = [
    ('blocked = ["gore", 3]', "", "a list of phrases or the name of a file"),
    ('blocked = ["gore", "?!"]', "", r"'\?!' has no word in it"),
    ('blocked = "missing.txt"', "", "No such file"),
    ("", 'sizes = ["64x64", "big"]', "not 'big'"),
    ("", 'sizes = ["128x128"]', "64x64, the model's own, is missing"),
    ("", "sizes = 64", "catalog.toml"),
]


@pytest.mark.parametrize(("row", "model", "said"), WRONG)
def test_a_wrong_row_is_said_when_the_catalogue_is_read(tmp_path: Path, row: str, model: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        catalogue(tmp_path, row, model)


def test_a_cascade_offers_the_sizes_that_both_its_models_draw(tmp_path: Path) -> None:
    assert catalogue(tmp_path).sizes == ("64x64",)
    wider = catalogue(tmp_path, model='sizes = ["64x64", "128x64"]')
    assert wider.models["light"].sizes == ("64x64", "128x64")
    assert wider.sizes == wider.sizes_of("cascade") == wider.sizes_of("heavy") == ("64x64",)
    assert wider.sizes_of("light") == ("64x64", "128x64"), "it never comes to the heavy one"


def test_a_size_is_two_whole_numbers_of_pixels() -> None:
    assert measures("1024x768") == (1024, 768)
    for wrong in ("1024", "0x8", "8x0", "8X8", " 8x8", "-8x8", "8x8x8", "123456x8"):
        with pytest.raises(ValueError, match="a size is"):
            measures(wrong)
    asked = [asked_size(job(parameters={"size": size})) for size in (None, "auto", "8x8")]
    assert [asked_size(job()), *asked] == [None, None, None, "8x8"]
