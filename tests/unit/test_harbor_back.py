"""A node's Harbor comes back: in which order, and what of it may fail."""

from pathlib import Path
from typing import Any, cast

import pytest

from tasks.errors import HarborHaError
from tasks.harbor import back
from tasks.hosts.connection import Host
from tasks.outcome import Outcome
from tests.unit.harbor_site import make_site

WAYS = ("up_before_core", "bring_core_back", "by_prepare", "restart_jobservice", "up")


class Harbor:
    """The steps of a node's Harbor, in the order in which they are done; a script says which fail."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, fails: str = "", changes: str = "", all_run: bool = True
    ) -> None:
        self.done: list[str] = []
        self.fails, self.changes, self.all_run = fails, changes, all_run
        for name in WAYS:
            module = back.compose if name.startswith("up") else back.repoint
            monkeypatch.setattr(module, name, self.step(name))

    def step(self, name: str) -> Any:
        def act(site: Any, host: Any, **given: str) -> Outcome:
            assert given in ({}, {"database_host": "10.0.0.2"})
            self.done.append(name)
            if name == self.fails:
                raise HarborHaError(f"{name} failed")
            return Outcome(name == self.changes, name, {"all_run": self.all_run})

        return act


def bring_back(directory: Path, **policy: str) -> Outcome:
    site = make_site(directory)
    site.failover = site.failover.model_copy(update=policy)
    return back.bring_back(site, cast(Host, None), database_host="10.0.0.2")


def complete(directory: Path) -> Outcome:
    return back.complete(make_site(directory), cast(Host, None), database_host="10.0.0.2")


def test_what_clients_need_is_there_with_core_and_nothing_else_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harbor = Harbor(monkeypatch, changes="bring_core_back")
    assert bring_back(tmp_path).changed
    assert harbor.done == ["bring_core_back"]


def test_what_does_not_start_beside_core_is_made_up_for_by_starting_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harbor = Harbor(monkeypatch, changes="up", all_run=False)
    assert bring_back(tmp_path).changed
    assert harbor.done == ["bring_core_back", "up"]


@pytest.mark.parametrize("fails", ["", "up_before_core"])
def test_a_site_that_repoints_by_prepare_comes_back_by_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    harbor = Harbor(monkeypatch, fails=fails)
    assert not bring_back(tmp_path, repoint="prepare").changed
    assert harbor.done == ["up_before_core", "by_prepare"]


def test_jobservice_asks_the_new_core_and_then_all_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harbor = Harbor(monkeypatch, changes="up")
    done = complete(tmp_path)
    assert (done.changed, done.data) == (True, {back.JOBS: ""})
    assert harbor.done == ["restart_jobservice", "up"]


def test_a_jobservice_that_does_not_follow_is_told_and_keeps_nothing_else_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harbor = Harbor(monkeypatch, fails="restart_jobservice")
    assert "restart_jobservice failed" in complete(tmp_path).data[back.JOBS]
    assert harbor.done[-1] == "up"


@pytest.mark.parametrize("part", ["bring_core_back", "up"])
def test_a_core_that_does_not_follow_and_a_harbor_that_does_not_start_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    Harbor(monkeypatch, fails=part, all_run=False)
    with pytest.raises(HarborHaError, match=f"{part} failed"):
        bring_back(tmp_path)
