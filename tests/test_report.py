"""What a run's page shows, and that it trusts no text and fetches nothing."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from analysis import figures, gallery, report, timelines
from analysis.scores import draw_scores
from shared import summary
from tests.synthetic_run import OUTCOMES, PLANS, cascade, heavy, light, outcome, run, with_pictures

HOSTILE = '<script>alert(1)</script>"><img src=http://evil.example/x>'


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the plots out where a test is not about them: drawing takes longer than all the rest."""
    monkeypatch.setattr(report, "draw", lambda *_: "")
    monkeypatch.setattr(report, "draw_scores", lambda *_: "")


class Page(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def sources(self) -> list[str]:
        names = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
        return [attributes[name] for _, attributes in self.tags for name in names if name in attributes]


# --- the figures -----------------------------------------------------------------------------------------------


def test_rates_and_shares_are_those_of_the_ticks_and_outcomes() -> None:
    assert figures.rates(run()) == [(0.0, 4.0), (2.0, 1.0)]
    assert figures.smooth([(0.0, 4.0), (2.0, 1.0), (9.0, 7.0)], 5.0) == [(0.0, 2.5), (2.0, 2.5), (9.0, 7.0)]
    assert figures.heavy_shares(run()) == [(0.0, 2 / 3), (5.0, 0.0), (10.0, 0.0)]


def test_overload_is_what_all_slots_drawing_heavy_could_not_take() -> None:
    assert figures.heavy_limit(run(), cascade()) == pytest.approx(6 * 4 / 2.0)
    slow = run(plans=tuple(replace(each, heavy_service_s=4.0) for each in PLANS))
    assert figures.heavy_limit(slow, cascade()) == pytest.approx(6 * 4 / 4.0)
    assert figures.heavy_limit(replace(slow, deadline_s=3.0), cascade()) == pytest.approx(6 * 1 / 2.0)
    assert figures.heavy_limit(run(plans=()), cascade()) == 0
    above = figures.spans_above([(0.0, 1.0), (1.0, 9.0), (2.0, 9.0), (3.0, 1.0), (4.0, 9.0)], 5.0)
    assert above == [(1.0, 3.0), (4.0, 4.0)]


def test_the_drawing_is_svg_in_the_colours_of_the_page() -> None:
    wide, narrow = (timelines.draw(run(), cascade(), width) for width in (figures.WIDE_IN, figures.NARROW_IN))
    assert wide.startswith("<svg") and wide.endswith("</svg>")
    root = ElementTree.fromstring(wide)
    words = " ".join("".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text"))
    named = ("Latency", "Demand", "planned for", "Waiting", "Workers ready", "Escalation", "threshold", "Mean batch")
    for word in (*named, "prompts/s", "deadline 5 s", "p50 3.00 s", "p99 6.00 s"):
        assert word in words
    assert "var(--ink" in wide and not any(colour in wide for colour in figures.VARIABLES)
    drawings = [wide, narrow, *(draw_scores(run(), width) for width in (figures.WIDE_IN, figures.NARROW_IN))]
    ids = [name for svg in drawings for name in set(re.findall(r'id="([^"]+)"', svg))]
    assert len(ids) == len(set(ids)), "all four stand on one page"


# --- the page --------------------------------------------------------------------------------------------------


def test_the_page_is_self_contained_and_trusts_no_text(tmp_path: Path) -> None:
    hostile = outcome(HOSTILE, "heavy", HOSTILE, 3.0, 4.0, light(3.1, 1, 0.2), heavy(3.3, 1), prompt=HOSTILE)
    pictures = with_pictures(tmp_path, "a-light.webp", "b-light.webp", "b-heavy.png")
    shown = run(
        outcomes=(*OUTCOMES, hostile),
        pictures=pictures,
        settings={"node": HOSTILE, "redis_url": "redis://:secret@host"},
    )
    page = Page(report.write_report(shown, cascade(), tmp_path).read_text())
    assert page.text.count(HOSTILE) >= 2
    assert "secret" not in page.text
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert page.sources() and all(source.startswith(("data:image/", "#")) for source in page.sources())
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not re.search(r"url\((?!#)|@import", (tmp_path / "report.html").read_text())


@pytest.mark.usefixtures("undrawn")
def test_no_heading_stands_twice() -> None:
    text = report.render(run(), cascade(), "one")
    found = re.findall(r"<(?:h1|h2|h3|summary)[^>]*>\s*(.*?)\s*(?:<span>.*?</span>)?</(?:h1|h2|h3|summary)>", text)
    assert "Settings" in found and "2 settings" in found
    assert len(found) == len(set(found))


@pytest.mark.usefixtures("undrawn")
def test_light_stands_beside_heavy_with_prompt_score_reason_and_latency(tmp_path: Path) -> None:
    pictures = with_pictures(tmp_path, "b-light.webp", "b-heavy.png")
    shown = run(outcomes=OUTCOMES[1:2], pictures=pictures)
    text = report.render(shown, cascade(), "one")
    images = [attributes for tag, attributes in Page(text).tags if tag == "img"]
    held = [base64.b64decode(image["src"].split(",")[1]) for image in images]
    assert held == [(pictures / name).read_bytes() for name in ("b-light.webp", "b-heavy.png")]
    assert [image["alt"] for image in images] == ["light picture of: scene b", "heavy picture of: scene b"]
    for fact in ("scene b", "score 0.20", "heavy: the score lay below the threshold", "3.00 s"):
        assert fact in Page(text).text


@pytest.mark.usefixtures("undrawn")
def test_a_missing_or_broken_picture_is_said_and_does_not_stop_the_page(tmp_path: Path) -> None:
    pictures = with_pictures(tmp_path, "a-light.webp", "b-heavy.png")
    whole = (pictures / "b-heavy.png").read_bytes()
    (pictures / "b-heavy.png").write_bytes(whole[: len(whole) // 2])
    page = Page(report.render(run(pictures=pictures), cascade(), "one"))
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 1
    assert page.text.count("picture not recorded") == 6  # b and c light and heavy, d and e light
    assert "No pictures were recorded" in Page(report.render(run(), cascade(), "one")).text


def test_large_pictures_are_shrunk_for_the_page(tmp_path: Path) -> None:
    Image.effect_noise((1024, 768), 80).save(tmp_path / "x-light.png")
    uri = gallery.data_uri(tmp_path / "x-light.png")
    assert uri is not None and uri.startswith("data:image/webp") and len(uri) < 60_000


def test_the_gallery_spreads_over_scores_and_prefers_prompts_with_pictures() -> None:
    many = [outcome(f"{n:03}", "light", "confident", n, n + 1, light(n, 1, n / 100)) for n in range(100)]
    assert [each.id for each in gallery.choose(many, 4, {})] == ["000", "033", "066", "099"]
    found = {f"{n:03}-light": Path() for n in range(40, 60)}
    assert [each.id for each in gallery.choose(many, 2, found)] == ["040", "059"]
    groups = gallery.gallery(run(outcomes=(*OUTCOMES, *many)))
    assert {group.title: group.total for group in groups} == {
        "Escalated": 2,
        "Confident": 101,
        "Kept by the keeper": 1,
        "No time to escalate": 1,
        "Without a picture": 3,
    }
    assert sum(kind.quota for kind in gallery.KINDS) <= 60


def test_the_headline_says_the_run_in_words() -> None:
    found = summary.summarise(run(offered=1_103, refused=0, outcomes=()), cascade())
    clean = {**found, "open": 0, "light": 1_103, "violation": 0.0018}
    assert report.headline(clean) == "1,103 prompts offered, all answered once, 0.2\u00a0% late or unanswered."
    assert report.headline(summary.summarise(run(), cascade())) == (
        "10 prompts offered, 5 answered, 1 refused, 1 dropped, 1 failed, 1 cancelled, 1 still open, "
        "40.0\u00a0% late or unanswered."
    )
    assert report.ends(summary.summarise(run(), cascade()))[-1] == ("open", "", 1)
    assert ("failed", "out of memory: alloc_pool", 1) in report.ends(summary.summarise(run(), cascade()))


def test_a_run_in_which_nothing_happened_has_a_page() -> None:
    empty = run(offered=0, refused=0, published=0, outcomes=(), plans=(), ticks=())
    assert "No prompt was offered." in report.render(empty, cascade(), "none")
