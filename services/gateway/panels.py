"""Parts of the dashboard that are plain HTML: words and figures made of a Snapshot, escaped by the template."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final

from services.gateway.plain import templates
from services.gateway.roster import nodes
from services.gateway.snapshot import Snapshot
from shared.figures import Figures
from shared.lookout import Mark
from shared.messages import Outcome
from shared.orders import Deed, Orders
from shared.plans import restaffed
from shared.schema import STAGES, Stage
from shared.summary import metric_figure, percent
from shared.words import NOTHING, at, most, reason, told

WELL: Final = 0.99  # of the prompts on time: below it the page says that deadlines are missed
CARDS: Final = 12
LETTERS: Final = 8
PLANS: Final = 8
LATE: Final = "late"
Link = Callable[[str, Stage], str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether deadlines are met, in a sentence. `mood`: good, bad or idle."""

    mood: str
    headline: str
    remark: str


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure. `accent`: what colours it, a stage, "bad" or nothing."""

    label: str
    figure: str
    unit: str
    remark: str
    accent: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why prompts ended badly, how many, and their share of the worst reason in percent."""

    words: str
    count: int
    percent: float
    accent: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of a card."""

    stage: Stage
    address: str
    caption: str


@dataclass(frozen=True, slots=True)
class Card:
    """A prompt with its pictures: of an escalated one both."""

    outcome: Outcome
    pictures: tuple[Shown, ...]
    facts: str


class Panels:
    """Renders the parts; `link` gives the address of a picture."""

    def __init__(self, deadline_s: float, link: Link) -> None:
        self._deadline_s = deadline_s
        self._link = link
        environment = templates()
        environment.filters["capital"] = lambda text: text[:1].upper() + text[1:]
        environment.filters["clock"] = at
        self._macros: Any = environment.get_template("panels.html").module

    def render(self, snapshot: Snapshot) -> dict[str, str]:
        """The parts made of figures and words, by their names, as HTML."""
        macros, now = self._macros, snapshot.time_s
        return {
            "verdict": str(macros.verdict(verdict(snapshot, self._deadline_s))),
            "tiles": str(macros.tiles(list(tiles(snapshot)))),
            "reasons": str(macros.reasons(reasons(snapshot.tiles), _calm(snapshot))),
            "plan": str(macros.plan(_plan(snapshot))),
            "plans": str(
                macros.plans([{"ago": ago(now - mark.time_s), "plan": mark.plan} for mark in moves(snapshot)])
            ),
            "fleet": str(macros.fleet(list(nodes(snapshot.fleet)))),
            "letters": str(macros.letters(_letters(snapshot))),
        }

    def pictures(self, snapshot: Snapshot) -> dict[str, str]:
        """The part `pictures`."""
        return {"pictures": str(self._macros.pictures(list(cards(snapshot.latest, self._link))))}

    def orders(self, standing: Orders, deeds: Sequence[Deed]) -> dict[str, str]:
        """The parts `orders`, what stands ordered, and `deeds`, who ordered what, the newest first."""
        words = ", ".join(standing.words())
        return {"orders": str(self._macros.orders(words)), "deeds": str(self._macros.deeds(deeds[::-1]))}


def verdict(snapshot: Snapshot, deadline_s: float) -> Verdict:
    """The answer to the first question."""
    seen, words = snapshot.tiles, f"{snapshot.tiles.seconds:.0f} s"
    if snapshot.trouble:
        return Verdict("bad", "Nothing can be seen just now", snapshot.trouble)
    # Not those offered: of the time before its start a gateway knows the ends only.
    remark = (
        f"{seen.ended:,} prompts ended or were refused in the last {words}; each is promised within {deadline_s:g} s. "
    )
    remark += f"{snapshot.open:,} open."
    if seen.on_time is None:
        return Verdict("idle", f"Idle: nothing ended in the last {words}", remark)
    if seen.on_time >= WELL:
        return Verdict("good", f"Deadlines are met: {most(seen.on_time)} on time", remark)
    worst = reasons(seen)
    because = f", mostly {worst[0].words}" if worst else ""
    return Verdict("bad", f"{percent(1 - seen.on_time)} miss their deadline{because}", remark)


def tiles(snapshot: Snapshot) -> Iterator[Tile]:
    """The figures of the last seconds, in the order of the questions."""
    seen = snapshot.tiles
    bad = "bad" if seen.on_time is not None and seen.on_time < WELL else ""
    yield Tile("On time", most(seen.on_time), "", f"late: {seen.late:,}", bad)
    slowest = " ".join(_seconds(seen.p99_s))
    yield Tile("Median answer", *_seconds(seen.p50_s), f"99th percentile {slowest}")
    yield Tile("Light answers", f"{seen.per_s('light'):.1f}", "/s", f"{seen.ends['light']:,} in all", "light")
    yield Tile("Heavy answers", f"{seen.per_s('heavy'):.1f}", "/s", f"{seen.ends['heavy']:,} in all", "heavy")
    yield _lost("Dropped", seen.ends["dropped"], seen)
    yield _lost("Failed", seen.ends["failed"], seen)
    yield _lost("Refused", seen.refused, seen)
    share = NOTHING if seen.heavy_share is None else percent(seen.heavy_share)
    yield _quality(seen, share)


def _lost(label: str, count: int, seen: Figures) -> Tile:
    return Tile(label, f"{seen.rate(count):.1f}", "/s", f"{count:,} in all", "bad" if count else "")


def _quality(seen: Figures, share: str) -> Tile:
    found = seen.quality
    if found is None:
        return Tile("Heavy share", share, "", "no quality curve applies")
    name = "FID" if found.metric == "fid" else found.metric
    assumed = ", assumed" if found.assumed else ""
    return Tile("Heavy share", share, "", f"estimated {name} {metric_figure(found.metric, found.value)}{assumed}")


def _seconds(value: float | None) -> tuple[str, str]:
    return (NOTHING, "") if value is None else (f"{value:.2f}", "s")


def reasons(seen: Figures) -> list[Reason]:
    """What kept prompts from a picture in time, the worst first; then what kept light pictures from becoming heavy."""
    missed = {key: count for key, count in seen.why.items() if key.split(":")[0] in ("dropped", "failed", "refused")}
    if seen.late:
        missed[LATE] = seen.late
    kept = {key: seen.why[key] for key in ("light:deadline", "light:no_time") if seen.why.get(key)}
    most = max([*missed.values(), *kept.values()], default=1)
    return [
        Reason(_told(key), count, round(100 * count / most, 1), accent)
        for group, accent in ((missed, "bad"), (kept, "light"))
        for key, count in sorted(group.items(), key=lambda item: -item[1])
        if count
    ]


def _told(key: str) -> str:
    return "drawn, but after the deadline" if key == LATE else told(*key.split(":", 1))


def _calm(snapshot: Snapshot) -> str:
    return (
        f"In the last {snapshot.tiles.seconds:.0f} s nothing came late, and nothing was dropped, refused or kept light."
    )


def _plan(snapshot: Snapshot) -> Mapping[str, Any] | None:
    if (plan := snapshot.plan) is None:
        return None
    return {
        "plan": plan,
        "solver": f"solved by {plan.solver} in {plan.solve_ms:.1f} ms" if plan.solver else "not solved",
    }


def moves(snapshot: Snapshot) -> list[Mark]:
    """The newest plans that changed workers or batches, the newest first."""
    changed = restaffed([mark.plan for mark in snapshot.marks])
    return list(compress(snapshot.marks, changed))[: -PLANS - 1 : -1]


def cards(latest: Sequence[Outcome], link: Link) -> Iterator[Card]:
    """The newest prompts that were answered, with their pictures."""
    answered = [outcome for outcome in latest if outcome.answered]
    for outcome in answered[:CARDS]:
        drawn = {visit.stage for visit in outcome.visits} | {outcome.end}
        score = "" if outcome.score is None else f"score {outcome.score:.2f}"
        shown = tuple(
            Shown(stage, link(outcome.id, stage), score if stage == "light" else "")
            for stage in STAGES
            if stage in drawn
        )
        yield Card(outcome, shown, f"{outcome.latency_s:.2f} s, {reason(outcome.end, outcome.why)}")


def _letters(snapshot: Snapshot) -> Mapping[str, Any]:
    shown = snapshot.letters[:LETTERS]
    rows = [{"ago": ago(snapshot.time_s - letter.finished), "letter": letter} for letter in shown]
    return {"letters": rows, "more": max(0, snapshot.dead - len(shown))}


def ago(seconds: float) -> str:
    """How long ago, in the largest unit that fits; no smaller one than minutes, so that it rests for a while."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "< 1 min"
