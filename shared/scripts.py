"""The scripts that run inside Redis, as texts: constants of `schema.py`, then `common.lua`, then the script's own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shared.schema import SHARED_WITH_SCRIPTS

_LUA: Final = Path(__file__).parent / "lua"


def scripts() -> dict[str, str]:
    """Name -> text."""
    constants = "".join(f"local {name} = {value!r}\n" for name, value in SHARED_WITH_SCRIPTS.items())
    common = constants + (_LUA / "common.lua").read_text()
    paths = sorted(_LUA.glob("*.lua"))
    return {path.stem: common + path.read_text() for path in paths if path.stem != "common"}
