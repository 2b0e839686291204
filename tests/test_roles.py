"""Who may do what: each role against each action, and the real services under their own roles."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from deploy.acl import ROLES, SHORTEST, TEMPLATES, USERS, access_list, filled, passwords
from deploy.runner import environment_of
from deploy.supervision import Supervisord, configuration
from services.ctl.__main__ import options
from services.ctl.prompts import in_words
from services.keeper import Keeper
from shared.broker import Broker
from shared.config import Settings
from shared.connection import CommandRefused, Unreachable
from shared.embedded import EmbeddedRedis, version_of
from shared.errors import SettingsError
from shared.exchange import Hop
from shared.lookout import Lookout
from shared.lookup import Lookup
from shared.observer import Observer
from shared.orders import pause
from tests.asking import ctl
from tests.conftest import BINARIES, name_of
from tests.gates import gate
from tests.helpers import a_plan, ends, hire, logger, publish, put_plan
from tests.processes import service, until, worker
from tests.rights import KEY, MATRIX
from tests.servers import folder

pytestmark = pytest.mark.live

PASSWORDS: Final = {user: f"{user}-{'x' * SHORTEST}" for user in USERS}


@dataclass
class Guarded:
    """A server with our access lists."""

    server: EmbeddedRedis
    version: tuple[int, ...]

    def settings(self, user: str, **changes: Any) -> Settings:
        address = self.server.url.replace("unix://", f"unix://{user}:{PASSWORDS[user]}@")
        return Settings(redis_url=address, deployment="d", node="test", **changes)

    def broker(self, user: str, **changes: Any) -> Broker:
        return Broker(self.settings(user, **changes))


@pytest.fixture(scope="module", params=BINARIES, ids=name_of)
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    version = version_of(request.param)
    with folder() as where:
        file = where / "users.acl"
        file.write_text(access_list("d", PASSWORDS, version))
        with EmbeddedRedis(where, binary=request.param, options=["--aclfile", str(file)]) as server:
            yield Guarded(server, version)


@pytest.fixture
def admin(guarded: Guarded) -> Iterator[Broker]:
    made = guarded.broker("admin")
    made.client.flushdb()
    made.check()
    made.client.acl_log_reset()
    yield made
    made.client.flushdb()
    made.close()


def permitted(broker: Broker, command: list[str]) -> bool:
    client: Any = broker.client
    try:
        client.execute_command(*command)
    except (CommandRefused, *Unreachable) as refused:
        words = f"{refused} {getattr(refused, 'status_code', '')}"
        return not re.search(r"(?i)NOPERM|no permissions|can't run this command|can't access|not allowed", words)
    return True


def too_much(guarded: Guarded) -> set[tuple[str, str]]:
    """(role, action) that the server allows beyond the matrix; what it wrongly forbids is an error."""
    found = set()
    for role in ROLES:
        broker = guarded.broker(role)
        for action, command, roles in MATRIX:
            allowed = permitted(broker, command)
            assert allowed or role not in roles, f"the {role} may not {action}"
            if allowed and role not in roles:
                found.add((role, action))
        broker.close()
    return found


def listed() -> set[tuple[str, str]]:
    """What README.md says that 6.2 cannot forbid."""
    text = (TEMPLATES / "README.md").read_text()
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \|$", text, re.MULTILINE)
    return {(role, action.strip()) for role, actions in rows if role in ROLES for action in actions.split(",")}


def test_each_role_may_do_its_own_work_and_nothing_else(guarded: Guarded, admin: Broker) -> None:
    admin.client.xadd(f"{KEY}dead", {"id": "x"})
    assert too_much(guarded) == (listed() if guarded.version < (7,) else set())


def test_without_a_password_or_with_a_wrong_one_nothing_is_answered(guarded: Guarded) -> None:
    for user in ("", "worker:wrong@", "default:wrong@"):
        url = guarded.server.url.replace("unix://", f"unix://{user}")
        client: Any = Broker(Settings(redis_url=url, deployment="d")).client
        for command in (["PING"], ["GET", "x"], ["INFO"]):
            with pytest.raises(Unreachable):
                client.execute_command(*command)


@pytest.mark.parametrize("binary", BINARIES, ids=name_of)
def test_what_the_scripts_wrote_is_there_after_a_restart(binary: Path) -> None:
    """Redis replays transactions as the default user, and throws away what that one may not do."""
    with folder() as where:
        (where / "users.acl").write_text(access_list("d", PASSWORDS, version_of(binary)))
        options = ["--aclfile", str(where / "users.acl")]
        server = EmbeddedRedis(where, binary=binary, durability="always", options=options)
        with server:
            broker = Guarded(server, version_of(binary)).broker("publisher")
            publish(broker, "kept")
            server.stop()
            server.start()
            assert Observer(Guarded(server, version_of(binary)).broker("reader")).next_due() is not None


def refusals(admin: Broker) -> list[str]:
    entries: Any = admin.client.acl_log()
    return [f"{each['username']}: {each['context']} {each['object']}" for each in entries]


def test_the_services_can_do_all_they_need_under_their_own_roles(guarded: Guarded, admin: Broker) -> None:
    fast: dict[str, Any] = {"cascade": "sdturbo", "backend": "sleeping", "lease_s": 1.0}
    publisher = guarded.broker("publisher")
    publisher.check()
    with ExitStack() as stack:
        for name in ("keeper", "control"):
            stack.enter_context(service(guarded.settings(name, slots=2, **fast), name))
        light = stack.enter_context(worker(guarded.settings("worker", **fast), "light", 0))
        stack.enter_context(worker(guarded.settings("worker", **fast), "heavy", 1))
        until(lambda: (plan := admin.plan()) and set(plan.assignment.values()) == {"light", "heavy"}, "a plan")
        publish(publisher, "a", "b", "c", allowance_s=6.0)
        publish(publisher, "h", allowance_s=6.0, route="heavy")
        publisher.cancel("c")
        light.kill()
        publish(publisher, "lost", allowance_s=1.0)
        until(lambda: len(ends(admin)) == 5, "all prompts end")
        until(lambda: admin.client.get(admin.keys.leader("keeper")), "the keeper still leads")
    found = ends(admin)
    assert (found["h"], found["c"], found["lost"][0]) == (("heavy", "heavy"), ("cancelled", "asked"), "dropped")
    assert not refusals(admin)


def test_under_one_supervisor_each_service_is_its_own_user(tmp_path: Path) -> None:
    binary = BINARIES[-1]
    with folder() as where, ExitStack() as stack:
        file = where / "users.acl"
        file.write_text(access_list("d", PASSWORDS, version_of(binary)))
        server = stack.enter_context(EmbeddedRedis(where, binary=binary, options=["--aclfile", str(file)]))
        here = Guarded(server, version_of(binary))
        admin = here.broker("admin")
        admin.check()
        socket = where / "supervisor.sock"
        settings = here.settings("reader", cascade="sdturbo", backend="sleeping")
        settings = settings.model_copy(update={"policy": "clipper-light", "supervisor_socket": socket})
        environment = environment_of(settings)
        environment |= {
            f"REDIS_URL_{role.upper()}": here.settings(role).redis_url
            for role in ("control", "keeper", "agent", "worker")
        }
        conf = tmp_path / "supervisord.conf"
        conf.write_text(configuration(tmp_path, socket, 1, environment))
        stack.enter_context(Supervisord(conf))
        until(lambda: (plan := admin.plan()) and plan.assignment, "a plan gives the slot a stage")
        publish(here.broker("publisher"), "p", allowance_s=20.0)
        until(lambda: ends(admin), "the prompt ends")
        users = {each["user"] for each in admin.client.client_list()}
        assert users >= {"control", "keeper", "agent", "worker"}
        assert "reader" not in users
        assert not refusals(admin)


def test_what_no_process_does_by_itself_is_permitted_too(guarded: Guarded, admin: Broker) -> None:
    """Rare turns, played by hand: hand back, upgrade, bury, move to light, out of memory, a lost group."""
    hands = guarded.broker("worker")
    hands.check()
    light, heavy = hire(hands), hire(hands, "heavy")
    publisher, agent = guarded.broker("publisher"), guarded.broker("agent")
    publish(publisher, "a", "b", "c", "d", allowance_s=30.0)
    publish(publisher, "h", "late", allowance_s=30.0, route="heavy")
    first, *rest = light.take(4)
    assert light.escalate(first) == 1
    hands.hand_back("light", light.name, rest[:1], suspect=True)
    hands.hand_back_all("light", light.name)
    assert hands.lower_ceiling("m", "g", 4) == 4
    keeper = Keeper(guarded.settings("keeper", margin_s=60.0, lease_s=1.0), {"light": 0.5, "heavy": 2.0}, logger)
    keeper.check()
    taken = heavy.take(3)
    keeper.step()  # keeps the light picture, moves what waits for heavy
    assert heavy.end(taken[-1]) == 2, "an upgrade"
    agent.announce_node("test", {"name": "test"})
    agent.bury("heavy", heavy.name, heavy.slot_key)
    hands.client.xlen(hands.keys.streams["light"][1])
    admin.client.xgroup_destroy(admin.keys.streams["light"][1], "workers")
    light.beat()
    light.take(4)
    hands.release(light.slot_key, light.name)
    hands.retire("light", light.name)
    control = guarded.broker("control")
    control.check()
    leader = control.keys.leader("control")
    assert control.hold(leader, "me")
    control.release(leader, "me")
    keeper.leave()
    observer = Observer(guarded.broker("reader"))
    Lookout(guarded.broker("reader")).look()
    observer.totals(), observer.backlog(), observer.workers(), observer.slots(), observer.outcomes()
    observer.open_prompts(1e12), observer.next_due(), observer.plans()
    assert not refusals(admin)


def test_a_reader_may_look_with_every_command_that_only_looks(guarded: Guarded, admin: Broker) -> None:
    publish(admin, "open", "failed", allowance_s=0.05)
    put_plan(admin, a_plan())
    light = hire(admin)
    entry = light.take(2)[1]
    assert admin.commit("light", light.name, [Hop(entry, "failed", "error", reason="ugly", blamed=True)]) == [1]
    letter = entry.job.id
    before = set(admin.client.keys())
    commands = (["status", "--once"], ["plan"], ["plan", "--history"], ["audit"], ["deadletters", "list"])
    for words in (*commands, ["deadletters", "show", letter], ["watch", letter]):
        reader = guarded.broker("reader")
        reader.check(groups=not options().parse_args(words).looks)
        assert ctl(reader, *words)
    look = Lookup(guarded.broker("reader")).look("open", place=True)
    assert look is not None and in_words(look) == "light: waits, or is being drawn"
    assert not set(admin.client.keys()) - before, "looking leaves nothing behind"


def test_the_gateway_can_do_all_it_needs(guarded: Guarded, admin: Broker) -> None:
    light = hire(admin)
    with gate(guarded.settings("gateway", cascade="tiny", deadline_s=20.0)) as made, made.client() as client:
        first, second = (client.post("/v1/jobs", json={"prompt": "a cat"}).json()["id"] for _ in range(2))
        assert client.get(f"/v1/jobs/{first}").json()["position"] == 1
        light.end(light.one())
        told = client.get(f"/v1/jobs/{first}/events").text
        assert "settled" in told
        assert client.get(f"/v1/jobs/{first}/image").content == b"light"
        assert client.delete(f"/v1/jobs/{second}").status_code == 200
        assert client.get("/metrics").status_code == 200
        client.get("/readyz")
        assert made.desk.broker.order(pause(), "somebody")
        assert made.desk.observer.deeds(10)
        time.sleep(1.5)  # the windows look once a second
    assert not refusals(admin)


def test_a_password_that_is_missing_or_short_is_named(tmp_path: Path) -> None:
    given = {f"REDIS_{user.upper()}_PASSWORD": password for user, password in PASSWORDS.items()}
    assert passwords(given) == PASSWORDS
    file = tmp_path / "secret"
    file.write_text("from-a-file-0123456789\n")
    assert passwords(given | {"REDIS_WORKER_PASSWORD_FILE": str(file)})["worker"] == "from-a-file-0123456789"
    for wrong in ({"REDIS_KEEPER_PASSWORD": "short"}, {"REDIS_KEEPER_PASSWORD_FILE": "/nowhere"}):
        with pytest.raises(SettingsError, match="REDIS_KEEPER_PASSWORD"):
            passwords(given | wrong)


def test_no_password_is_written_down() -> None:
    for version in ((6, 2), (7, 0)):
        text = access_list("d", PASSWORDS, version)
        assert not any(password in text for password in PASSWORDS.values())
        assert len(text.splitlines()) == len(USERS) + 1


def test_defined_words_are_filled_in() -> None:
    template = "# about\ndefine looks +get\n\nuser a on #$a $looks\n  ~x\nuser b off\n"
    assert filled(template, {"a": "digest"}) == "user a on #digest +get ~x\nuser b off\n"
