"""Keys of the API: what a keyring holds, who is let in, how fast, and the command that makes them."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from services.ctl.__main__ import main
from services.gateway.callers import LOOK_S, Gatekeeper, Meter
from services.gateway.errors import ApiError
from shared.embedded import EmbeddedRedis
from shared.errors import SettingsError
from shared.keyring import Keyring, read_keyring, write_keyring
from shared.observer import Observer
from shared.schema import BATCH, NORMAL, URGENT
from tests.helpers import publish
from tests.processes import until
from tests.shops import Shop, client_of, shop_of


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Guarded:
    """A shop with keys, and the secrets of these."""

    shop: Shop
    secrets: dict[str, str]
    http: httpx.Client

    def asked(self, name: str = "alice", **body: object) -> httpx.Response:
        return self.http.post("/v1/jobs", json={"prompt": "a cat", **body}, headers=self.key(name))

    def key(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secrets[name]}"}


@pytest.fixture(scope="module")
def guarded(oldest_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    path, ring, secrets = tmp_path_factory.mktemp("keys") / "keys.toml", Keyring(), dict[str, str]()
    ring, secrets["alice"] = ring.added("alice")
    ring, secrets["batch"] = ring.added("batch", priority=BATCH)
    ring, secrets["slow"] = ring.added("slow", rate_per_s=0.01)
    ring, secrets["boss"] = ring.added("boss", admin=True, priority=URGENT)
    write_keyring(path, ring)
    with shop_of(oldest_server, http_keys=path) as shop, shop.gate.client() as http:
        yield Guarded(shop, secrets, http)


def test_a_keyring_is_read_as_it_was_written_and_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    ring, first = Keyring().added("a.b-c", rate_per_s=2.5, priority=BATCH, admin=True)
    ring, second = ring.added("other")
    write_keyring(path, ring)
    assert read_keyring(path) == ring
    assert first not in path.read_text() and second not in path.read_text()
    for name, secret in (("a.b-c", first), ("other", second)):
        found = ring.find(secret)
        assert found == (name, ring.keys[name])
    assert ring.find("sk-wrong") is None
    assert ring.removed("other").find(second) is None


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_keyring_stays_open_to_those_who_might_read_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.toml"
    write_keyring(path, Keyring())
    path.chmod(mode)
    ring, _ = Keyring().added("alice")
    write_keyring(path, ring)
    assert (read_keyring(path), stat.S_IMODE(path.stat().st_mode)) == (ring, mode)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[keys.a", "Expected"),
        ("[key.a]", "unknown table key"),
        ("[keys.a]\nrate_per_s = 1", "keys.a.sha256"),
        ('[keys.a]\nsha256 = "abc"', "keys.a.sha256"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\nrate_per_s = 0', "keys.a.rate_per_s"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\npriority = 7', "keys.a.priority"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\nrank = 7', "keys.a.rank"),
        (f'[keys."a b"]\nsha256 = "{"0" * 64}"', "keys.a b"),
    ],
)
def test_a_wrong_keyring_names_file_and_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as wrong:
        Gatekeeper(path)
    assert str(wrong.value).startswith(f"{path}: ") and said in str(wrong.value)


def test_a_changed_keyring_is_known_soon_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.toml", Clock()
    ring, alice = Keyring().added("alice")
    write_keyring(path, ring)
    gatekeeper = Gatekeeper(path, clock)
    assert gatekeeper.recognise(alice).name == "alice"
    path.write_text("[keys.alice")
    clock.now += 2 * LOOK_S
    assert gatekeeper.recognise(alice).name == "alice"
    ring, bob = ring.removed("alice").added("bob")
    write_keyring(path, ring)
    clock.now += 2 * LOOK_S
    assert gatekeeper.recognise(bob).name == "bob"
    with pytest.raises(ApiError) as gone:
        gatekeeper.recognise(alice)
    assert gone.value.status_code == 401


def test_a_rate_is_kept_over_any_time() -> None:
    clock = Clock()
    meter, taken = Meter(4.0, clock), 0
    for _ in range(1000):
        clock.now += 0.01
        try:
            meter.take(3)
            taken += 3
        except ApiError as wait:
            assert wait.status_code == 429 and wait.headers is not None
            owed_s = int(wait.headers["Retry-After-Ms"]) / 1000
            assert 0 < owed_s <= 3 / 4.0 + 0.001
    assert 40 <= taken <= 40 + 4 + 3, "ten seconds at four a second, what was kept of one second, and a request's debt"


def test_idle_time_is_kept_for_a_second_only() -> None:
    clock = Clock()
    meter, taken = Meter(4.0, clock), 0
    meter.take(1)
    clock.now += 100.0
    with pytest.raises(ApiError):
        for _ in range(1000):
            meter.take(1)
            taken += 1
    assert taken == 4


def test_a_waiting_caller_is_let_in_when_he_was_told() -> None:
    clock = Clock()
    meter = Meter(0.5, clock)
    meter.take(10)
    with pytest.raises(ApiError) as wait:
        meter.take(1)
    assert wait.value.headers is not None
    clock.now += int(wait.value.headers["Retry-After-Ms"]) / 1000
    meter.take(1)


@pytest.mark.parametrize("key", ["", "wrong", "sk-" + "0" * 43, "\u00e9"])
def test_nobody_comes_in_without_a_key(guarded: Guarded, key: str) -> None:
    headers = [(b"Authorization", f"Bearer {key}".encode())] if key else []
    for method, path in (
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/tiny"),
        ("GET", "/v1/jobs/any"),
        ("GET", "/v1/jobs/any/events"),
        ("GET", "/v1/jobs/any/image"),
        ("DELETE", "/v1/jobs/any"),
    ):
        body = {"prompt": "a cat"} if method == "POST" else None
        answer = guarded.http.request(method, path, headers=headers, json=body)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
        assert answer.json()["error"]["code"] == ("invalid_api_key" if key else "missing_api_key")
    assert guarded.http.get("/healthz").status_code == 200


def test_the_official_client_comes_in_with_its_key(guarded: Guarded) -> None:
    with client_of(guarded.shop.gate, guarded.secrets["alice"]) as client:
        assert client.images.generate(prompt="a cat").data
    with client_of(guarded.shop.gate, "sk-wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.images.generate(prompt="a cat")


@pytest.mark.parametrize(
    ("name", "asked", "status", "priority"),
    [
        ("alice", None, 202, NORMAL),
        ("alice", BATCH, 202, BATCH),
        ("alice", URGENT, 403, None),
        ("batch", None, 202, BATCH),
        ("batch", NORMAL, 403, None),
        ("boss", URGENT, 202, URGENT),
    ],
)
def test_a_key_says_how_urgent_its_prompts_may_be(
    guarded: Guarded, name: str, asked: int | None, status: int, priority: int | None
) -> None:
    answer = guarded.asked(name, priority=asked)
    assert answer.status_code == status, answer.text
    if priority is None:
        assert answer.json()["error"]["param"] == "priority"
    else:
        record = guarded.shop.broker.client.hget(guarded.shop.broker.keys.prompt(answer.json()["id"]), "class")
        assert record == str(priority).encode()


def test_a_key_over_its_rate_is_told_when_to_come_again(guarded: Guarded) -> None:
    assert guarded.asked("slow").status_code == 202
    before = Observer(guarded.shop.broker).totals()["offered"]
    again = guarded.asked("slow")
    assert (again.status_code, again.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 90 <= int(again.headers["retry-after"]) <= 100
    assert Observer(guarded.shop.broker).totals()["offered"] == before


@pytest.mark.parametrize("user", [None, "lisa", "bob", "bob/alice"])
def test_a_job_is_known_to_its_key_and_to_admins_alone(guarded: Guarded, user: str | None) -> None:
    http, shop = guarded.http, guarded.shop

    def statuses(name: str) -> list[int]:
        found = []
        for rest in ("", "/image", "/events"):  # the last of which would go on and on
            with http.stream("GET", f"{path}{rest}", headers=guarded.key(name)) as answer:
                found.append(answer.status_code)
        return found

    with shop.painters.resting("light"):
        job_id = guarded.asked("alice", user=user).json()["id"]
        path = f"/v1/jobs/{job_id}"
        for stranger in ("batch", "slow"):
            assert statuses(stranger) == [404, 404, 404]
            refused = http.delete(path, headers=guarded.key(stranger))
            unknown = http.delete("/v1/jobs/unknown", headers=guarded.key(stranger))
            assert refused.status_code == 404
            assert refused.text == unknown.text.replace("unknown", job_id), "it says no more than of one that is none"
        assert http.get(path, headers=guarded.key("alice")).json()["state"] == "open"
    until(lambda: http.get(path, headers=guarded.key("boss")).json()["state"] == "light", "it is drawn")
    assert statuses("alice") == statuses("boss") == [200, 200, 200]
    assert statuses("batch") == [404, 404, 404], "also when it has ended"
    for name in ("alice", "boss"):
        assert http.delete(path, headers=guarded.key(name)).status_code == 409, "it has ended, and they may know"


def test_what_came_in_by_another_door_is_for_admins(guarded: Guarded) -> None:
    publish(guarded.shop.broker, "foreign")
    found = {name: guarded.http.get("/v1/jobs/foreign", headers=guarded.key(name)) for name in ("alice", "boss")}
    assert {name: answer.status_code for name, answer in found.items()} == {"alice": 404, "boss": 200}
    until(lambda: guarded.shop.broker.client.zcard(guarded.shop.broker.keys.due) == 0, "it is drawn")


def test_keys_are_made_listed_and_removed_without_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.toml"
    monkeypatch.setenv("REDIS_URL", "unix:///nowhere.sock")
    monkeypatch.setenv("CASCADE_HTTP_KEYS", str(path))

    def ctl(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ctl", "key", *words])
        assert main() == 0
        return capsys.readouterr().out.strip()

    secret = ctl("add", "alice", "--rate", "2.5", "--priority", "2", "--admin")
    known = Gatekeeper(path).recognise(secret)
    assert (known.name, known.priority, known.admin) == ("alice", BATCH, True)
    assert known.meter is not None and known.meter.rate_per_s == 2.5
    listed = ctl("list")
    assert "alice" in listed and "2.5" in listed and secret not in listed
    ctl("remove", "alice")
    with pytest.raises(ApiError):
        Gatekeeper(path).recognise(secret)
    with pytest.raises(SettingsError, match="no key 'alice'"):
        ctl("remove", "alice")
