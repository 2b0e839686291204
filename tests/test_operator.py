"""The operator's pages: each command is run or says why not, each alert is explained, a backup is restored."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.secrets import SERVER
from deploy.supervision import ROOT
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis, version_of
from shared.observer import Observer
from tests.helpers import assert_conserved, ends, hire, publish, totals
from tests.operating import NOT_RUN, PAGES, Shell, block, blocks
from tests.processes import service, until
from tests.servers import folder

NAMES = ("test_operator.py", "test_operator_live.py", "test_operator_compose.py")
TESTS = [ROOT / "tests" / name for name in NAMES]
ELSEWHERE = {"recipes": "test_recipes.py"}
# What a line of prose begins with that is a command after all.
COMMAND = re.compile(r"^\s*(\$ |docker |redis-cli |\.venv/|python3? -m |make [a-z]+$|kubectl |export |curl )")


def executed() -> set[str]:
    """The names of the blocks that the tests run."""
    return {name for file in TESTS for name in re.findall(r'block\("([\w-]+)"\)', file.read_text())} | set(ELSEWHERE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_is_run_by_a_test_or_says_why_not(page: Path) -> None:
    known = executed()
    for each in blocks(page):
        if each.language in ("sh", "bash", "console", ""):
            marked = each.name.startswith(NOT_RUN) and len(each.name) > len(NOT_RUN) + 5
            assert marked or each.name in known, f"{each.page}: nothing runs {each.name!r}: {each.text[:60]!r}"
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    loose = [line for line in prose.splitlines() if COMMAND.match(line) or re.match(r"^ {4}\S", line)]
    assert not loose, f"{page.name}: commands outside of blocks: {loose}"


def test_every_block_that_a_test_names_is_printed() -> None:
    printed = {each.name for page in PAGES for each in blocks(page)}
    assert executed() <= printed
    assert "def recipes" in (ROOT / "tests" / ELSEWHERE["recipes"]).read_text()


def test_each_alert_is_explained_with_what_to_do() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    rows = re.findall(
        r"^\| `(Cascade\w+)` \| (.+) \| (.+) \|$", (ROOT / "deploy" / "README.md").read_text(), re.MULTILINE
    )
    assert {name for name, *_ in rows} == alerts
    assert all(len(means) > 20 and len(what) > 10 for _, means, what in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for module in re.findall(r"python3? -m ([a-z_.]+\w)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_page_is_read_in_ten_minutes() -> None:
    words = len((ROOT / "deploy" / "README.md").read_text().split())
    assert words < 2_300, f"{words} words: split a chapter off"


# -- backup and restore ------------------------------------------------------------------------------------------------


@pytest.fixture
def tools() -> None:
    if not all(shutil.which(name) for name in ("redis-server", "redis-cli", "redis-check-rdb")):
        pytest.skip("Redis' own tools are not on this machine")


@pytest.fixture
def place() -> Iterator[Path]:
    with folder() as made:
        yield made


def with_open_prompts(broker: Broker) -> None:
    """One settled, one that waits, one in a worker's hands, one with a light picture that waits for heavy."""
    publish(broker, "settled", allowance_s=3.0)
    light = hire(broker)
    light.end(light.one(), "light")
    publish(broker, "escalated", allowance_s=3.0)
    light.escalate(light.one())
    publish(broker, "held", allowance_s=3.0)
    light.one()
    publish(broker, "waiting", allowance_s=3.0)


@pytest.mark.usefixtures("tools")
def test_a_backup_is_restored_and_what_was_open_in_it_is_settled_once(place: Path) -> None:
    server_binary = Path(str(shutil.which("redis-server")))
    shell = Shell(place / "s", {})
    tool, cli = place / "s" / "tools" / "redis-cli", shutil.which("redis-cli")
    with EmbeddedRedis(place / "old", binary=server_binary, durability="everysec") as old:
        broker = Broker(Settings(redis_url=old.url, deployment="d"))
        broker.check()
        with_open_prompts(broker)
        tool.write_text(f'#!/bin/sh\nexec {cli} -s {place}/old/redis.sock "$@"\n')
        tool.chmod(0o755)
        assert "RDB looks OK" in shell.run(block("backup")), "it can be read"
        publish(broker, "after the backup")
        broker.close()
    tool.unlink()
    shell.run(block("restore"))
    assert [path.name for path in (place / "s" / "restored").glob("dump.rdb")] == []
    restored = EmbeddedRedis(place / "s" / "restored", binary=server_binary, durability="everysec")
    with restored:
        broker = Broker(Settings(redis_url=restored.url, deployment="d"))
        broker.check()
        assert set(ends(broker)) == {"settled"}, "it holds what the backup held"
        with service(broker.settings, "keeper"):
            until(lambda: Observer(broker).next_due() is None, "all that was open is settled")
        assert ends(broker) == {
            "settled": ("light", "confident"),
            "escalated": ("light", "deadline"),
            "held": ("dropped", "deadline"),
            "waiting": ("dropped", "deadline"),
        }
        assert totals(broker)["offered"] == 4
        assert_conserved(broker)
        publish(broker, "new")
        hand = hire(broker)
        hand.end(hand.one(), "light")
        assert ends(broker)["new"][0] == "light", "and it goes on"
        broker.close()


@pytest.mark.usefixtures("tools")
def test_a_snapshot_alone_would_start_an_empty_redis(place: Path) -> None:
    """Why the page takes the step between."""
    binary = Path(str(shutil.which("redis-server")))
    if version_of(binary) < (7, 0):
        pytest.skip("before 7 the append-only file was one file")
    with EmbeddedRedis(place / "a", binary=binary, durability="everysec") as server:
        broker = Broker(Settings(redis_url=server.url, deployment="d"))
        broker.client.set("known", "1")
        client: Any = broker.client
        client.save()
        broker.close()
    (place / "b").mkdir()
    shutil.copy(place / "a" / "dump.rdb", place / "b" / "dump.rdb")
    with EmbeddedRedis(place / "b", binary=binary, durability="everysec") as server:
        broker = Broker(Settings(redis_url=server.url, deployment="d"))
        assert broker.client.get("known") is None
        broker.close()


# -- what needs no server ----------------------------------------------------------------------------------------------


def test_passwords_become_users(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "s", {})
    said = shell.run(block("secrets"))
    assert re.search(r"first key of the door.*sk-", said)
    shell.run(block("acl"))
    made = (tmp_path / "s" / "users.acl").read_text()
    assert made == (tmp_path / "s" / "secrets" / "users.acl").read_text()
    assert "--server " + ".".join(map(str, SERVER)) in block("acl"), "for the Redis of docker-compose.yml"


def test_a_key_of_the_door_is_made(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "s", {})
    assert shell.run(block("keys")).strip()
    assert "NAME" in (tmp_path / "s" / "keys.toml").read_text()


def test_a_cascade_is_tried_on_the_simulator(tmp_path: Path) -> None:
    assert "violation" in Shell(tmp_path / "s", {}).run(block("try-model"))
