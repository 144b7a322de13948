"""The second run of a restore does what the first has not done, and only that: by its note, not by "a core runs"."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from blocks import HarborSite
from flows import disaster_restore as flow
from flows.machinery.protocol import Protocol
from tasks.backup.restore import done, recovery, revive
from tasks.backup.restore.done import SETTLED, STARTED
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed
from tests.unit.harbor_site import make_site
from tests.unit.local_host import local_host

OF = "20261122T180000Z-1a2b3c4d"


class World:
    """The target: which database it holds, and whether a core runs."""

    def __init__(self, site: HarborSite) -> None:
        self.site, self.host = site, local_host()
        self.database, self.runs = "7100/16385", True
        self.did: list[str] = []

    def stops(self, _: HarborSite, __: Host) -> Outcome:
        """Stop the core."""
        self.did.append("stopped")
        self.runs = False
        return changed("stopped harbor-core")

    def does(self, what: str, answer: Any) -> Callable[..., Any]:
        """Make a stand-in that is remembered."""

        def done_so(*_: object, **__: object) -> Any:
            self.did.append(what)
            return answer

        return done_so


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A target on which some Harbor runs."""
    made = World(make_site(tmp_path))
    monkeypatch.setattr(done, "NOTE", str(tmp_path / "done.json"))
    monkeypatch.setattr(done, "_database", lambda *_: made.database)
    for module in (revive, recovery):
        monkeypatch.setattr(module, "harbor_runs", lambda _: made.runs)
    monkeypatch.setattr(revive, "stop_writers", made.stops)
    monkeypatch.setattr(revive, "_speak", made.does("emptied", {"0": 3}))
    monkeypatch.setattr(recovery, "make_missing_links", made.does("made links", changed("2 of 9 links")))
    monkeypatch.setattr(recovery, "_backup", made.does("read", ("origin", SimpleNamespace(links=None))))
    monkeypatch.setattr(recovery, "restore_links", made.does("unpacked", None))
    return made


def links(world: World) -> Outcome:
    return recovery.restore_image_links(world.site, world.host, backup=OF, of=OF)


def test_links_that_are_missing_are_made_under_the_running_harbor(world: World) -> None:
    """images=nas had restored none, and images=oss called them restored because a core ran: for ever."""
    done.note_started(world.site, world.host, of=OF)
    assert links(world).changed
    assert world.did == ["made links"]


def test_links_are_not_unpacked_over_newer_ones_where_harbor_has_served_and_stands_still(
    world: World,
) -> None:
    done.note_started(world.site, world.host, of=OF)
    world.runs = False
    links(world)
    assert world.did == ["made links"]


def test_links_are_unpacked_where_nothing_has_served_yet(world: World) -> None:
    world.runs = False
    links(world)
    assert world.did == ["read", "unpacked"]


def test_links_that_this_restore_has_unpacked_are_not_made_again_by_the_database(world: World) -> None:
    """A run that had nothing to do made 6,600 links that the lost site itself had not had."""
    world.runs = False
    assert links(world).changed
    done.note_started(world.site, world.host, of=OF)
    world.runs = True
    assert not links(world).changed
    assert world.did == ["read", "unpacked"]


def test_a_harbor_of_before_is_stopped_and_the_caches_are_emptied(world: World) -> None:
    """Its core was taken for the restore's, and Redis kept what it said of blobs that are not there."""
    assert revive.stop_stray(world.site, world.host, of=OF).changed
    assert revive.empty_caches(world.site, world.host, of=OF).changed
    assert world.did == ["stopped", "emptied"]


def test_one_that_came_back_with_the_machine_is_stopped_before_the_caches_are_emptied(world: World) -> None:
    assert revive.empty_caches(world.site, world.host, of=OF).changed
    assert world.did == ["stopped", "emptied"]


def test_one_that_does_not_stop_ends_the_restore(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revive, "stop_writers", world.does("tried", changed("stopped nothing")))
    with pytest.raises(HarborHaError, match="does not stop"):
        revive.stop_stray(world.site, world.host, of=OF)


def test_the_restores_own_harbor_runs_on_with_its_caches(world: World) -> None:
    assert done.note_started(world.site, world.host, of=OF).changed
    assert not done.note_started(world.site, world.host, of=OF).changed
    assert not revive.stop_stray(world.site, world.host, of=OF).changed
    assert not revive.empty_caches(world.site, world.host, of=OF).changed
    assert world.did == []


@pytest.mark.parametrize("change", ["another backup", "another database", "a damaged note"])
def test_a_note_counts_for_its_backup_and_its_database_only(change: str, world: World) -> None:
    done.note(world.site, world.host, OF, SETTLED)
    done.note(world.site, world.host, OF, STARTED)
    assert done.done(world.site, world.host, OF) == {SETTLED, STARTED}
    if change == "another database":
        world.database = "7100/20001"
    elif change == "a damaged note":
        Path(done.NOTE).write_text("{")
    assert done.done(world.site, world.host, "another" if change == "another backup" else OF) == frozenset()


def steps_of(images: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that bring images back, in order."""
    taken: list[str] = []
    run = cast(Protocol, SimpleNamespace(on=lambda step, *_, **__: taken.append(step)))
    names = ("restore_links", "require_links", "make_links", "restore_images")
    monkeypatch.setattr(flow, "steps", SimpleNamespace(**{name: name for name in names}))
    flow.bring_back_images(run, "node-a", images, OF, {})
    return taken


def test_on_a_nas_that_lives_the_links_are_looked_at_and_not_the_directory_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert steps_of("nas", monkeypatch) == ["require_links", "make_links", "restore_images"]
    assert steps_of("oss", monkeypatch) == ["restore_links", "restore_images"]
