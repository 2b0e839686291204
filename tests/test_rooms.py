"""The rooms of the house, read off the syntax trees: who may import whom, and how long things may grow."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED: dict[str, set[str]] = {
    "shared": set(),
    # Deciding needs no trace; the simulator's command reads one.
    "planner": {"shared", "traces"},
    "models": {"shared"},
    "traces": set(),
    "services": {"planner", "shared", "traces", "models"},
    "analysis": {"planner", "shared", "models", "traces"},
    "deploy": {"planner", "shared", "models", "traces", "services", "analysis"},
}
# Five files, one process; a package is one service anyway.
ONE_SERVICE = {
    f"services.{part}": "worker"
    for part in ("finishing", "hops", "lease", "settlement", "studio", "watchdog", "worker")
}
LONGEST_FILE, LONGEST_FUNCTION = 300, 45
FOLDERS = {
    "services",
    "shared",
    "planner",
    "traces",
    "models",
    "datasets",
    "deploy",
    "logs",
    "analysis",
    "tests",
    ".ci",
}
LOOSE_FILES = {"requirements.txt", "docker-compose.yml", "README.md", "pyproject.toml", "Makefile", "LICENSE"}
TOP_LEVEL = FOLDERS | LOOSE_FILES | {".gitignore", ".gitattributes", ".dockerignore"}


def files(*rooms: str) -> list[Path]:
    found = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    # Not what was written by no hand: caches, and what torch.compile keeps beside the weights.
    return [path for path in found if not any(part == "__pycache__" or part[0] == "." for part in _below(path))]


def _below(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).parts


EVERY_FILE = files(*ALLOWED, "tests")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """Every module a file names, dotted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in files(room)
        for module in imports(path)
        if module.split(".")[0] in {*ALLOWED, "tests", "datasets"} - ALLOWED[room] - {room}
    ]
    assert not wrong


def test_services_never_import_each_other() -> None:
    wrong = []
    for path in files("services"):
        own = "services." + path.relative_to(ROOT / "services").parts[0].removesuffix(".py")
        for module in imports(path):
            other = ".".join(module.split(".")[:2])
            if other.startswith("services.") and ONE_SERVICE.get(other, other) != ONE_SERVICE.get(own, own):
                wrong.append(f"{name_of(path)} imports {other}")
    assert not wrong


def test_only_the_connection_imports_redis() -> None:
    product = [path for path in EVERY_FILE if path.parts[-2] != "tests"]
    importing = {name_of(path) for path in product if any(m.split(".")[0] == "redis" for m in imports(path))}
    assert importing == {"shared/connection.py"}


def test_what_has_no_gpu_and_the_variable_that_shows_gpus_are_named_once() -> None:
    """A comparison of its own, such as `gpu == "cpu"`, would be a second rule, and could come to differ."""
    naming, comparing = set(), set()
    for path in (each for each in EVERY_FILE if each.relative_to(ROOT).parts[0] != "tests"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value == "CUDA_VISIBLE_DEVICES":
                naming.add(name_of(path))
            if _asks_for_processor(node):
                comparing.add(name_of(path))
    assert naming == comparing == {"shared/model.py"}


def _asks_for_processor(node: ast.AST) -> bool:
    """Whether a GPU type is compared, on either side, with that of slots that have no GPU, or its beginning is."""
    sides: list[ast.expr] = []
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
        sides = [node.func.value, *node.args]
    parts = [part for side in sides for part in getattr(side, "elts", [side])]
    names = {ast.unparse(part).rpartition(".")[2] for part in parts}
    return "gpu" in names and bool(names & {"'cpu'", "CPU", "PROCESSOR"})


@pytest.mark.parametrize(
    ("code", "asks"),
    [
        ("slot.gpu == 'cpu'", True),
        ("'cpu' == gpu", True),
        ("model.PROCESSOR != slot.gpu", True),
        ("gpu in ('', 'cpu')", True),
        ("given.gpu.startswith('cpu')", True),
        ("gpu.startswith(('cpu', 'none'))", True),
        ("gpu == 'a100-80g'", False),
        ("device.type == 'cpu'", False),
        ("choose_device(given.gpu).type == 'cpu'", False),
    ],
)
def test_a_comparison_with_the_processor_is_seen_on_either_side(code: str, asks: bool) -> None:
    assert _asks_for_processor(ast.parse(code, mode="eval").body) is asks


def test_nothing_is_pickled() -> None:
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not [name_of(path) for path in EVERY_FILE if banned & {module.split(".")[0] for module in imports(path)}]


def test_datasets_is_no_package() -> None:
    assert not (ROOT / "datasets" / "__init__.py").exists(), "it would hide the library of that name"


def test_no_file_and_no_function_grows_too_long() -> None:
    long: list[str] = []
    for path in EVERY_FILE:
        text = path.read_text()
        if len(text.splitlines()) > LONGEST_FILE:
            long.append(f"{name_of(path)}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{name_of(path)}:{node.lineno} {node.name}: {lines} lines")
    assert not long


def test_the_top_level_is_as_given() -> None:
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    assert {line.split("/")[0] for line in listed.splitlines()} <= TOP_LEVEL


def test_every_module_says_what_it_is() -> None:
    assert not [name_of(path) for path in EVERY_FILE if not ast.get_docstring(ast.parse(path.read_text()))]
