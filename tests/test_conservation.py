"""The conservation law, whatever happens in whatever order, on a real server."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from services.keeper import SILENT
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.exchange import OpenPrompt
from shared.messages import End, Entry
from shared.observer import Observer
from shared.schema import RETURNED, SUSPECT, Stage
from tests.helpers import Hand, Place, a_plan, assert_conserved, ends, hire, holders, publish, put_plan

IDS = [f"p{number}" for number in range(10)]
LIGHT_S = 4.0  # as the plan has it: with a few prompts in the queue, the door refuses and displaces
LEASE_S = 600.0  # none runs out by itself
PICK = st.integers(0, 100)
SEEN = ("published", "known", "refused", "displaced", "cancelled", "moved from the silent", "left to the living")


class Machine(RuleBasedStateMachine):
    """Publishers, workers, deaths and a keeper; `_ended` remembers each prompt's first outcome."""

    server_url = ""
    seen: ClassVar[Counter[str]] = Counter()  # over all examples: a rule that never bites would prove nothing
    hands = Bundle("hands")
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self._broker = Broker(
            Settings(redis_url=self.server_url, deployment=f"m{uuid.uuid4().hex[:8]}", lease_s=LEASE_S)
        )
        self._broker.check()
        put_plan(self._broker, a_plan(light_batch=1, light_service_s=LIGHT_S, heavy_batch=1, heavy_service_s=LIGHT_S))
        self._silent: set[str] = set()  # workers without a lease, or not heard of for half of it
        self._ended: dict[str, tuple[str, str]] = {}

    def teardown(self) -> None:
        for name in list(holders(self._broker).values()):
            self._broker.client.delete(self._broker.keys.worker(name))
        self._broker.reclaim()
        for stage in ("light", "heavy"):
            hand = hire(self._broker, stage)
            for _ in range(2 * len(IDS)):
                for entry in hand.take(4):
                    hand.end(entry)
        assert not self._broker.client.zcard(self._broker.keys.due), "open = 0 at the end"
        assert_conserved(self._broker)
        self._broker.client.flushdb()
        self._broker.close()

    @rule(
        prompt_id=st.sampled_from(IDS),
        route=st.sampled_from(["cascade", "cascade", "heavy"]),
        priority=st.integers(0, 2),
        allowance_s=st.sampled_from([2.0, 11.0, 31.0]),
    )
    def publish(self, prompt_id: str, route: str, priority: int, allowance_s: float) -> None:
        before, held = self._open(), holders(self._broker)
        receipt = publish(self._broker, prompt_id, route=route, priority=priority, allowance_s=allowance_s)
        displaced = before.keys() - self._open().keys()
        for each in displaced:
            assert ends(self._broker)[each] == ("dropped", "displaced")
            assert before[each].priority > priority, "only by a higher class"
            assert before[each].stage == "light"
            assert held.get(place_of(before[each]), RETURNED) in (RETURNED, SUSPECT), "never out of a worker's hands"
        assert len(displaced) <= (receipt.status == "published"), "one in, at most one out"
        Machine.seen.update([receipt.status, "displaced"][: 1 + len(displaced)])

    @rule()
    def publish_before_one_that_is_only_just_in_time(self) -> None:
        late_s = publish(self._broker, "low", priority=2, allowance_s=LIGHT_S).retry_after_s
        if late_s:
            publish(self._broker, "low", priority=2, allowance_s=LIGHT_S + late_s + 1.0)
        self.publish("high", "cascade", 0, allowance_s=100.0)
        assert ends(self._broker)["low"] == ("dropped", "displaced"), "one place further back it is late"

    def _open(self) -> dict[str, OpenPrompt]:
        return {prompt.id: prompt for prompt in Observer(self._broker).open_prompts(1e12)}

    @rule(prompt_id=st.sampled_from(IDS), pick=PICK, some_open_one=st.booleans())
    def cancel(self, prompt_id: str, pick: int, some_open_one: bool) -> None:
        now_open = list(self._open())
        if some_open_one and now_open:
            prompt_id = now_open[pick % len(now_open)]
        was_open = prompt_id in now_open
        done = self._broker.cancel(prompt_id)
        assert done.done is was_open
        ended = ends(self._broker).get(prompt_id)
        if was_open:
            assert ended == ("cancelled", "asked")
        assert done.state == (ended[0] if ended else "unknown")
        Machine.seen["cancelled"] += was_open

    @initialize(target=hands)
    def crew(self) -> object:
        return multiple(hire(self._broker), hire(self._broker, "heavy"))

    @rule(target=hands, stage=st.sampled_from(["light", "heavy"]))
    def hire(self, stage: Stage) -> Hand:
        return hire(self._broker, stage)

    @rule(target=held, hand=hands, batch=st.integers(1, 3))
    def claim(self, hand: Hand, batch: int) -> object:
        entries = hand.take(batch)
        if entries:
            self._silent.discard(hand.name)
        return multiple(*((hand, entry) for entry in entries))

    @rule(hand=hands)
    def renew(self, hand: Hand) -> None:
        mine = {
            (priority, entry_id) for (_, priority, entry_id), name in holders(self._broker).items() if name == hand.name
        }
        renewal = hand.beat()
        assert renewal.entries <= mine
        if renewal.alive:
            self._silent.discard(hand.name)

    @rule(hand=hands, dead=st.booleans())
    def kill_or_silence(self, hand: Hand, dead: bool) -> None:
        if dead:
            hand.die()
        else:
            self._broker.client.pexpire(self._broker.keys.worker(hand.name), int(LEASE_S * 1000 / 2))
        self._silent.add(hand.name)

    @rule()
    def reclaim(self) -> None:
        self._broker.reclaim()
        for name in set(holders(self._broker).values()) - {"returned", "suspect"}:
            assert self._broker.client.exists(self._broker.keys.worker(name)), "a dead worker keeps nothing"

    @rule(one=held, suspect=st.booleans())
    def hand_back(self, one: tuple[Hand, Entry], suspect: bool) -> None:
        hand, entry = one
        self._broker.hand_back(hand.stage, hand.name, [entry], suspect=suspect)

    @rule(one=held)
    def escalate(self, one: tuple[Hand, Entry]) -> None:
        hand, entry = one
        if hand.stage == "light":
            self._if_ours(hand, entry, lambda: hand.escalate(entry))

    @rule(one=held, end=st.sampled_from(["own", "dropped", "failed", "cancelled"]))
    def settle(self, one: tuple[Hand, Entry], end: End | str) -> None:
        hand, entry = one
        how: End | None = None if end == "own" else end  # type: ignore[assignment]
        self._if_ours(hand, entry, lambda: hand.end(entry, how))

    @rule(pick=PICK, move=st.booleans(), silent=st.booleans())
    def overtake_or_move(self, pick: int, move: bool, silent: bool) -> None:
        due = Observer(self._broker).open_prompts(1e12)
        if due:
            prompt = due[pick % len(due)]
            if move and prompt.stage == "heavy" and not prompt.has_light and silent:
                self._move_from_the_silent(prompt)
            elif move and prompt.stage == "heavy" and not prompt.has_light:
                self._broker.move_to_light(prompt.id, prompt.priority, prompt.entry_id)
            else:
                how: End = "light" if prompt.has_light else "dropped"
                self._broker.overtake(prompt.id, prompt.stage, prompt.priority, prompt.entry_id, how, "deadline")

    @rule(target=held, prompt_id=st.sampled_from(IDS), silent=st.booleans())
    def claim_what_was_sent_straight_to_heavy(self, prompt_id: str, silent: bool) -> object:
        publish(self._broker, prompt_id, route="heavy", allowance_s=31.0)
        hand = hire(self._broker, "heavy")
        claimed = self.claim(hand, 3)
        if silent:
            self.kill_or_silence(hand, dead=False)
        held = {place for place, name in holders(self._broker).items() if name == hand.name}
        for prompt in self._open().values():
            if place_of(prompt) in held and not prompt.has_light:
                self._move_from_the_silent(prompt)
        return claimed

    def _move_from_the_silent(self, prompt: OpenPrompt) -> None:
        holder = holders(self._broker).get(place_of(prompt), RETURNED)
        free = holder in {RETURNED, SUSPECT, *self._silent}
        place = prompt.id, prompt.priority, prompt.entry_id
        assert self._broker.move_to_light(*place, silent_s=SILENT * LEASE_S) is free, "from no live worker"
        Machine.seen["moved from the silent" if free else "left to the living"] += holder not in (RETURNED, SUSPECT)

    def _if_ours(self, hand: Hand, entry: Entry, act: Callable[[], int]) -> None:
        ours = holders(self._broker).get(hand.place(entry)) == hand.name
        assert (act() == 1) is ours, "exactly the owner acts"

    @invariant()
    def one_outcome_per_prompt_and_nothing_unaccounted(self) -> None:
        assert_conserved(self._broker)
        now = ends(self._broker)
        assert {prompt_id: now[prompt_id] for prompt_id in self._ended} == self._ended, "an outcome never changes"
        self._ended = now

    @invariant()
    def every_open_prompt_has_exactly_one_entry(self) -> None:
        client, keys = self._broker.client, self._broker.keys
        streams = [stream for row in keys.streams.values() for stream in row]
        assert sum(int(client.xlen(stream)) for stream in streams) == client.zcard(keys.due)


def place_of(prompt: OpenPrompt) -> Place:
    return prompt.stage, prompt.priority, prompt.entry_id


def test_offered_equals_refused_plus_ends_plus_open_whatever_happens(server: EmbeddedRedis) -> None:
    Machine.server_url = server.url
    Machine.seen.clear()
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert all(Machine.seen[each] for each in SEEN), Machine.seen
