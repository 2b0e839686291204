"""Words and phrases that no prompt may hold: how a list is read, and how a prompt is searched."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from shared.errors import SettingsError

# Chinese and Japanese are written without blanks: each of their characters is a word of its own.
_UNSPACED: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS: Final = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_ACCENTS: Final = range(0x300, 0x370)  # of Latin and Greek letters; elsewhere such signs make another word
_COMMENT: Final = "#"


def read_blocked(given: Any, folder: Path) -> tuple[str, ...]:
    """The phrases of a row in the catalogue: a list of them, or a file under `folder`, one phrase a line.

    Lines that begin with `#` are remarks. Raises SettingsError where it is neither, or where a phrase has no word.
    """
    if isinstance(given, str):
        given = _lines(folder / given)
    if not isinstance(given, list) or not all(isinstance(phrase, str) for phrase in given):
        raise SettingsError(f"blocked: a list of phrases or the name of a file, not {given!r}"[:200])
    for phrase in given:
        if not _plain(phrase):
            raise SettingsError(f"blocked: {phrase!r} has no word in it")
    return tuple(given)


def blocked_phrase(prompt: str, phrases: Sequence[str]) -> str | None:
    """The first place's blocked phrase in the prompt, as the list has it; None where the prompt holds none.

    Whole words are compared, whatever their case, accents, and the marks between them.
    """
    if not phrases:
        return None
    known, lengths = _prepared(tuple(phrases))
    words = _plain(prompt)
    for place in range(len(words)):
        for length in lengths:
            found = known.get(words[place : place + length])
            if found is not None:
                return found
    return None


@lru_cache(maxsize=4)
def _prepared(phrases: tuple[str, ...]) -> tuple[dict[tuple[str, ...], str], tuple[int, ...]]:
    """Each phrase by its words, and the numbers of words that occur."""
    known = {_plain(phrase): phrase for phrase in phrases}
    return known, tuple(sorted({len(words) for words in known}))


def _plain(text: str) -> tuple[str, ...]:
    """The words of a text in one spelling."""
    parts = unicodedata.normalize("NFKD", text)
    # Neither accents nor signs without width may hide a word.
    seen = "".join(sign for sign in parts if ord(sign) not in _ACCENTS and unicodedata.category(sign) != "Cf")
    return tuple(_WORDS.findall(unicodedata.normalize("NFKC", seen).casefold()))


def _lines(path: Path) -> list[str]:
    try:
        lines: Iterable[str] = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as wrong:
        raise SettingsError(f"blocked: {path}: {wrong}") from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith(_COMMENT)]
