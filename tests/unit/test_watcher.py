"""The watcher: what it does with what it hears, and that nothing keeps it from the other sites."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from blocks import HarborSite
from blocks.problems import SiteUnknown
from deployments import cli, exits
from deployments.attempts import AlertRefused, PrefectTrouble
from deployments.watch import service
from deployments.watch.watcher import Watcher
from flows.rules.watch import Order, Watch
from tasks.clock import Moment
from tasks.observation.beats import Beat
from tasks.operation.record import last_primary_from
from tests.unit.harbor_site import make_site
from tests.unit.test_rules_watch import T, down, later, silent, up
from tests.unit.waiting import until
from tests.unit.watched_site import Scene


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    return make_site(tmp_path)


def well(now: Moment) -> list[Beat]:
    """A sound pair."""
    return [up(now), down(now, heard_at=now.monotonic)]


def powerless(now: Moment) -> list[Beat]:
    """Only the standby speaks, and hears nobody."""
    return [down(now)]


def test_a_power_cut_is_called_for_once_and_again_each_minute(site: HarborSite) -> None:
    scene = Scene(site)
    scene.live(T, 30, well)
    assert scene.calls == []
    cut = later(30)
    scene.live(later(30.5), 150, powerless)
    assert [order.expected_primary for _, order in scene.calls] == ["node-a"] * 3
    first = scene.watch.memory.called_at
    assert first is not None
    assert cut.monotonic + 120 < first < cut.monotonic + 130
    assert {order.outage for _, order in scene.calls} == {"node-a-2"}


def test_a_watcher_that_may_not_call_says_that_it_is_due_and_starts_nothing(site: HarborSite) -> None:
    scene = Scene(site, calls=False)
    scene.live(T, 5, well)
    scene.live(later(5.5), 150, powerless)
    assert scene.watch.decision is not None
    assert scene.watch.decision.kind is Watch.CALL
    assert scene.calls == []


def test_a_call_that_prefect_does_not_take_is_told_and_made_again_each_five_seconds(site: HarborSite) -> None:
    scene = Scene(site)
    scene.answers = [PrefectTrouble("Prefect does not answer"), PrefectTrouble("Prefect answers 503")]
    scene.live(T, 5, well)
    scene.live(later(5.5), 20, powerless)
    assert len(scene.calls) == 3
    assert scene.troubles == ["Prefect does not answer", "Prefect answers 503"]
    assert (scene.watch.counts.calls_failed, scene.watch.counts.prefect_takes_calls) == (2, True)


def test_a_call_that_finds_the_run_before_it_under_way_asks_again_soon(site: HarborSite) -> None:
    # A minute after the call is some milliseconds less than a minute after the run: the next one was two minutes away.
    scene = Scene(site)
    scene.answers = ["run-1", "run-1", "run-2"]
    scene.live(T, 5, well)
    end = scene.live(later(5.5), 75, powerless)
    assert len(scene.calls) == 3
    assert end.monotonic - (scene.watch.memory.called_at or 0) < 10


def test_what_is_refused_is_not_called_each_five_seconds(site: HarborSite) -> None:
    scene = Scene(site)
    scene.answers = [AlertRefused("Prefect refuses the parameters")] * 9
    scene.live(T, 5, well)
    scene.live(later(5.5), 40, powerless)
    assert len(scene.calls) == 1


def test_the_new_primary_is_called_for_in_its_turn(site: HarborSite) -> None:
    scene = Scene(site)
    scene.live(T, 5, well)
    scene.live(later(5.5), 10, powerless)
    scene.live(later(16), 20, lambda now: [up(now, "node-b", timeline=3)])
    assert scene.watch.decision is not None
    assert scene.watch.decision.kind is Watch.CALM
    scene.live(later(36.5), 10, lambda now: [down(now, "node-a", timeline=3, heard_at=later(36).monotonic)])
    assert [order.expected_primary for _, order in scene.calls] == ["node-a", "node-b"]


def test_a_call_that_took_long_is_not_put_down_to_the_new_primary(site: HarborSite) -> None:
    scene = Scene(site)

    def start(name: str, order: Order) -> str:
        scene.watch.memory = replace(scene.watch.memory, primary="node-b")
        return scene.start(name, order)

    scene.watch.start = start
    scene.live(T, 5, well)
    scene.live(later(5.5), 4, powerless)
    # For the new one, nothing was called yet.
    assert [order.expected_primary for _, order in scene.calls] == ["node-a", "node-b"]


def test_a_loop_that_stood_still_begins_to_count_anew(site: HarborSite) -> None:
    scene = Scene(site)
    scene.live(T, 5, well)
    scene.live(later(5.5), 2, powerless)
    scene.live(later(20), 2.5, powerless)
    assert scene.calls == []
    assert scene.watch.counts.stood_still == 1
    scene.live(later(23), 1, powerless)
    assert len(scene.calls) == 1


def test_the_primarys_position_is_kept_on_all_nodes_within_seconds_of_its_change(site: HarborSite) -> None:
    scene = Scene(site)
    scene.live(T, 60, lambda now: [up(now, lsn=up(now).lsn), down(now, heard_at=now.monotonic)])
    idle = [text for name, text in scene.listeners["node-b"].asked_to_keep if name == "last_primary"]
    assert 2 <= len(idle) <= 4, "a failover refuses what is older than three minutes"
    busy = Scene(site)
    busy.live(T, 60, lambda now: [up(now, lsn=type(up(now).lsn or 0)(now.monotonic * 100)), down(now)])
    for listener in busy.listeners.values():
        kept = [last_primary_from(json.loads(text)) for _, text in listener.asked_to_keep]
        assert 10 <= len(kept) <= 13
        assert kept[-1] is not None
        assert (kept[-1].node, kept[-1].position.timeline) == ("node-a", 2)
        assert later(60).wall - kept[-1].at < 6


def test_no_position_is_kept_of_who_does_not_answer(site: HarborSite) -> None:
    scene = Scene(site)
    scene.live(T, 10, well)
    before = len(scene.listeners["node-b"].asked_to_keep)
    scene.live(later(10.5), 60, lambda now: [silent(later(10)), down(now)])
    assert len(scene.listeners["node-b"].asked_to_keep) <= before + 1


def test_a_site_whose_calls_hang_delays_no_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    hung, sound = Scene(make_site(tmp_path), spawn=in_thread), Scene(make_site(tmp_path / "other"))
    release = threading.Event()
    hung.watch.start = lambda name, order: str(release.wait(30))
    now = Moment(time.monotonic(), time.time())
    hung.live(Moment(now.monotonic - 20, now.wall - 20), 10, lambda at: [up(at), down(at)])
    watcher = Watcher([hung.item, sound.item], rounds=False)
    thread = threading.Thread(target=watcher.run, daemon=True)
    thread.start()
    try:
        begun = time.monotonic()
        until(lambda: hung.watch._calling or time.monotonic() > begun + 8, lambda: hung.watch.decision, 10)
        looked = sound.watch.looked_at
        until(lambda: sound.watch.looked_at not in (looked, None), lambda: "not looked at", 5)
    finally:
        watcher.stop()
        release.set()
        thread.join(10)


# A thorough look hangs for a minute when the watcher is told to stop.
STOPPED_IN_A_ROUND = """
import sys, threading, time
from pathlib import Path
from deployments.watch import watcher
from tests.unit.harbor_site import make_site
from tests.unit.watched_site import Scene
begun = threading.Event()
watcher.take_round = lambda *_: (begun.set(), time.sleep(60))
made = watcher.Watcher([Scene(make_site(Path(sys.argv[1]))).item])
made._look_thoroughly(made.sites[0], float("inf"))
assert begun.wait(10)
made.stop()
made.run()
"""


def test_a_watcher_that_is_told_to_stop_waits_for_no_look(tmp_path: Path) -> None:
    # It begins anew after `apply`: until the look had ended nobody watched.
    begun = time.monotonic()
    argv = [sys.executable, "-c", STOPPED_IN_A_ROUND, str(tmp_path)]
    assert subprocess.run(argv, cwd=Path(__file__).parents[2], timeout=90).returncode == 0
    assert time.monotonic() - begun < 45


def test_a_site_that_is_gone_takes_the_watch_of_the_others_along_with_it_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_site(tmp_path)

    def load(name: str) -> HarborSite:
        if name != made.name:
            raise SiteUnknown(name)
        return made

    monkeypatch.setattr(service, "load_site", load)
    assert service.saved(["gone", made.name]) == [made]
    with pytest.raises(SiteUnknown):
        service.saved(["gone"])


@pytest.mark.parametrize("pace", ["0", "-1", "nan", "600", "x"])
def test_a_pace_that_is_none_is_refused(pace: str) -> None:
    with pytest.raises(SystemExit) as refused:
        cli.main(["watch", "--site", "main", "--pace", pace])
    assert refused.value.code == exits.USAGE


def in_thread(work: object) -> None:
    """Do something beside the loop."""
    threading.Thread(target=work, daemon=True).start()  # type: ignore[arg-type]


def test_a_defect_in_one_site_does_not_end_the_watch_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    broken, sound = Scene(make_site(tmp_path)), Scene(make_site(tmp_path / "other"))
    broken.watch.listeners = None  # type: ignore[assignment]
    broken.item.watch.listeners = {}
    broken.watch.beats = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    watcher = Watcher([broken.item, sound.item], rounds=False)
    thread = threading.Thread(target=watcher.run, daemon=True)
    thread.start()
    try:
        until(lambda: sound.watch.looked_at is not None, lambda: "not looked at", 5)
        first = sound.watch.looked_at
        until(lambda: sound.watch.looked_at != first, lambda: "looked at once", 5)
    finally:
        watcher.stop()
        thread.join(10)
