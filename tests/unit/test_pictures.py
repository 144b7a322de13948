"""The pictures of reports: well-formed whatever is in them, small, readable on their own ground, and true."""

import base64
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks import HarborSite
from deployments.runs import for_terminal
from flows.machinery.backup_report import Listed, catalogue_table
from flows.machinery.protocol import Protocol, StepRecord
from flows.machinery.report import drawn, render
from flows.pictures.backups import Backup, backups_chart
from flows.pictures.site import site_picture
from flows.pictures.svg import in_markdown
from flows.pictures.timeline import MOST_ROWS, Bar, idle, timeline, waited_for
from tasks.outcome import changed, unchanged

SVG = "{http://www.w3.org/2000/svg}"
NOW = datetime(2026, 11, 26, tzinfo=UTC)
LOOK = Bar("Look at all nodes", "", 0.0, 1.0, "unchanged")
FENCE = Bar("Fence over SSH", "node-a", 1.1, 4.0, "failed")
FORESEE = Bar("Work out Harbor's next core", "node-b", 1.1, 2.0, "unchanged")
PROMOTE = Bar("Promote the standby", "node-b", 7.0, 1.5, "changed")
RUN = (LOOK, FENCE, FORESEE, PROMOTE)
PRIMARY = ("node-a", "primary", "running", "2", "", "healthy", "served", "runs")
STANDBY = ("node-b", "standby", "streaming, async", "2", "2.5 MB", "healthy", "not served", "runs")
DEAF = ("node-c", "standby", "hears nothing", "1", "unknown", "database unhealthy", "served", "silent")
GONE = ("node-a", "unknown", "not reached", "", "", "unknown", "not served", "")


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def shapes(svg: str, kind: str, tag: str = "rect") -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)
    return [element for element in root.iter(f"{SVG}{tag}") if element.get("class") == kind]


def backup(days: float, **given: object) -> Backup:
    started = NOW - timedelta(days=days)
    fields = {"size": 1000, "seconds": 60.0, "complete": True, "state": "with images"} | given
    return Backup(f"{started:%Y%m%dT%H%M%SZ}", started, **fields)  # type: ignore[arg-type]


class TestTimeline:
    """What a run did, what waited for what, and when nothing happened."""

    def test_each_step_has_its_row_and_its_kind(self) -> None:
        svg = timeline("failover of main", RUN, 9.0)
        said = texts(svg)
        assert "Fence over SSH (node-a)" in said
        assert "Look at all nodes" in said
        legend = 1
        assert [len(shapes(svg, kind)) - legend for kind in ("changed", "unchanged", "failed")] == [1, 2, 1]

    def test_bars_are_as_long_as_their_steps_took(self) -> None:
        svg = timeline("t", RUN, 9.0)
        fence, promote = shapes(svg, "failed")[0], shapes(svg, "changed")[0]
        assert float(fence.get("width", 0)) / float(promote.get("width", 1)) == pytest.approx(
            4.0 / 1.5, rel=0.01
        )
        assert float(fence.get("x", 0)) < float(promote.get("x", 0))

    def test_idle_is_when_no_step_was_at_work(self) -> None:
        assert idle(RUN, 9.0) == [(pytest.approx(5.1), 7.0), (8.5, 9.0)]
        assert idle([], 2.0) == [(0.0, 2.0)]
        svg = timeline("t", RUN, 9.0)
        assert "9.0 s, 2.4 s idle" in texts(svg)
        assert len(shapes(svg, "idle")) == 2 + 1

    def test_a_step_waited_for_the_last_that_ended_just_before(self) -> None:
        assert waited_for(FENCE, RUN) is LOOK
        assert waited_for(FORESEE, RUN) is LOOK, "both at once"
        assert waited_for(PROMOTE, RUN) is None, (
            "nearly two seconds after the fence, of which nothing is known"
        )
        assert len(shapes(timeline("t", RUN, 9.0), "way", "path")) == 2

    def test_of_a_long_run_the_longest_steps_and_all_failures_are_shown(self) -> None:
        many = [Bar(f"step {n}", "", n, 0.1 + n / 100, "changed") for n in range(60)]
        failed = Bar("a short one that failed", "", 3.0, 0.01, "failed")
        said = texts(timeline("t", [*many, failed], 61.0))
        assert "a short one that failed" in said
        assert "step 59" in said
        assert "step 0" not in said
        assert any(text.startswith(f"and {61 - MOST_ROWS} short steps") for text in said)


class TestSite:
    """Who serves, who follows whom, how far behind."""

    def test_the_lag_is_told_between_primary_and_standby(self) -> None:
        svg = site_picture("main is HEALTHY", [STANDBY, PRIMARY])
        assert "lag 2.5 MB" in texts(svg)
        assert len(shapes(svg, "first")) == 1
        served = [way for way in shapes(svg, "way", "path") if way.get("marker-end")]
        assert len(served) == 2, "clients to the primary, WAL to the standby"

    def test_what_is_wrong_is_marked(self) -> None:
        svg = site_picture("main is DOWN", [GONE, DEAF])
        assert len(shapes(svg, "gone")) == 1
        wrong = {element.text for element in shapes(svg, "bad", "text")}
        assert wrong >= {"not reached", "not served", "Harbor: database unhealthy", "guard: silent"}
        assert not any("lag" in text for text in texts(svg)), "there is no primary to lag behind"

    def test_a_third_node_does_not_hide_the_way_of_the_wal(self) -> None:
        said = texts(site_picture("t", [PRIMARY, STANDBY, DEAF]))
        assert {"lag 2.5 MB", "lag unknown"} <= set(said)


class TestBackups:
    """Sizes, durations and ages."""

    def test_the_newest_is_on_top_and_what_is_not_complete_is_marked(self) -> None:
        listed = [
            backup(3, size=500),
            backup(0.5),
            backup(1, complete=False, state="not complete", seconds=None),
        ]
        svg = backups_chart("Backups of main", listed, NOW)
        said = texts(svg)
        assert [text for text in said if text in ("12 h", "24 h", "3 days")] == ["12 h", "24 h", "3 days"]
        assert "unknown" in said
        (broken,) = shapes(svg, "failed")
        whole = shapes(svg, "changed")
        assert float(whole[1].get("width", 0)) == pytest.approx(float(whole[0].get("width", 0)) / 2, rel=0.01)
        assert broken.findtext(f"{SVG}title")

    def test_zero_backups_are_said_and_many_are_counted(self) -> None:
        assert "There is no backup." in texts(backups_chart("t", [], NOW))
        assert "and 5 older ones" in texts(backups_chart("t", [backup(n) for n in range(25)], NOW))


FOREIGN = st.text(min_size=1) | st.sampled_from(
    ["<script>alert(1)</script>", "]]>", "&", "\"'", "\x00\x1b", "\ud800"]
)


@given(FOREIGN)
def test_foreign_text_stays_text(foreign: str) -> None:
    bars = [Bar(foreign, foreign, 0.0, 1.0, "failed")]
    row = (foreign, "primary", foreign, "1", "", foreign, foreign, foreign)
    for svg in (
        timeline(foreign, bars, 1.0),
        site_picture(foreign, [row, STANDBY]),
        backups_chart(foreign, [backup(1, state=foreign)], NOW),
    ):
        root = ElementTree.fromstring(svg)
        tags = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert tags <= {"svg", "title", "style", "defs", "marker", "path", "rect", "text"}
        line = in_markdown(svg, foreign)
        assert "\n" not in line
        assert re.fullmatch(r"!\[[^\[\]<>`]*\]\(data:image/svg\+xml;base64,[A-Za-z0-9+/=]+\)", line)


def test_a_picture_is_small_and_names_nothing_outside_of_itself() -> None:
    bars = [Bar("A step with quite a long name", "node-a, node-b", n, 0.9, "changed") for n in range(80)]
    pictures = [
        timeline("t", bars, 80.0),
        site_picture("t", [PRIMARY, STANDBY, DEAF]),
        backups_chart("t", [backup(n) for n in range(60)], NOW),
    ]
    for svg in pictures:
        assert len(svg) < 16_000
        assert not re.search(r"href|url\((?!#arrow)|@import", svg)
        assert "prefers-color-scheme:dark" in svg
        ground = shapes(svg, "ground")
        assert len(ground) == 1, "its own ground, on which its text is readable in every theme"


def ended(*records: StepRecord) -> Protocol:
    run = Protocol("failover", cast(HarborSite, SimpleNamespace(name="main")))
    run.records.extend(records)
    return run


RECORDS = (
    StepRecord("Look at all nodes", (), 0.0, 0.4, unchanged("node-a is silent")),
    StepRecord("Fence over SSH", ("node-a",), 0.5, 2.0, None, "node-a does not answer"),
    StepRecord("Promote the standby", ("node-b",), 2.6, 1.0, changed("timeline 2")),
)


def test_a_report_carries_its_timeline_with_the_steps_under_a_fold() -> None:
    run = ended(*RECORDS)
    text = render(run, "node-b is the primary.", {"Decided": ["so"]}, drawn(run))
    (data,) = re.findall(r"base64,([^)]*)\)", text)
    assert "Promote the standby (node-b)" in texts(base64.b64decode(data).decode())
    fold = text.index("<details><summary>Steps</summary>\n\n| at |")
    assert text.index("## Decided") < text.index("![") < fold < text.index("</details>")
    assert for_terminal(text) == render(run, "node-b is the primary.", {"Decided": ["so"]})


def test_a_dry_run_and_a_run_of_two_steps_have_no_timeline() -> None:
    assert drawn(ended(*RECORDS[:2])) == ""
    dry = ended(*RECORDS)
    dry.dry_run = True
    assert drawn(dry) == ""


def test_the_table_of_backups_has_the_newest_first() -> None:
    lines = [
        Listed(f"{name}: complete, with images, 7 bytes; stays: new", backup(1)) for name in ("old", "new")
    ]
    assert catalogue_table(lines)[2:] == [
        "| new | complete, with images, 7 bytes | stays: new |",
        "| old | complete, with images, 7 bytes | stays: new |",
    ]
