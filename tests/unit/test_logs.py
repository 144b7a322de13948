"""What a run has told is printed where the operator sits, with Prefect and without."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.prefect_api import prefect_api
from blocks.store import save_site
from deployments import cli, exits, kept_runs
from deployments.catalogue import entry
from deployments.doctor import looks
from deployments.doctor.links import Holds
from deployments.schedules import due_runs, wanted_schedules
from deployments.status import describe_next, next_runs
from tests.unit.harbor_site import make_site

NOWHERE = "http://127.0.0.1:9/api"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def api(prefect_server: str) -> Iterator[httpx.Client]:
    with prefect_api(timeout=30) as made:
        yield made


def kept(site: str, line: str, *, later_s: float = 0.0) -> kept_runs.KeptRun:
    """A failover that ran without Prefect and has told one line."""
    run = kept_runs.begin("failover", site)
    run = replace(
        run, begun=run.begun + later_s, state="COMPLETED", ending="Completed", headline="node-b leads"
    )
    kept_runs.keep(run, ".log", line + "\n")
    return kept_runs.note(run)


@contextmanager
def somebody_else() -> Iterator[str]:
    """What answers on the port of a Prefect that is gone."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'["a proxy\'s page"]')

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api"
        server.shutdown()


def begun(api: httpx.Client, site: str, *lines: str) -> dict[str, Any]:
    """A run of `pause` in Prefect that is under way and has told some lines."""
    deployment = str(entry("pause").deployment().apply())
    body = {"parameters": {"site": site}, "name": f"pause of {site}"}
    run = api.post(f"deployments/{deployment}/create_flow_run", json=body).raise_for_status().json()
    # Every run of the tests begins after the one before it: the state's own time counts.
    state = {"state": {"type": "RUNNING", "name": "Running"}, "force": True}
    api.post(f"flow_runs/{run['id']}/set_state", json=state).raise_for_status()
    at = datetime.now(UTC)
    told = [
        {
            "name": "prefect.flow_runs",
            "level": 40 if "FAILED" in line else 20,
            "message": line,
            "timestamp": (at + timedelta(milliseconds=number)).isoformat(),
            "flow_run_id": run["id"],
        }
        for number, line in enumerate(lines)
    ]
    for first in range(0, len(told), 100):
        api.post("logs/", json=told[first : first + 100]).raise_for_status()
    return dict(run)


@pytest.mark.servers
def test_the_newest_run_of_a_site_or_the_one_that_is_named_is_told_whole_and_in_its_order(
    api: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"line {number}" for number in range(450)]
    first = begun(api, "main", *lines, "FAILED: Promote the standby")
    begun(api, "other", "of another site")
    assert cli.main(["logs", "main"]) == exits.DONE
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"pause of main ({first['id']}), ")
    assert told[0].endswith(": Running")
    assert [line.partition("    ")[2] for line in told[1:451]] == lines
    assert "ERROR   FAILED: Promote the standby" in told[451]
    second = begun(api, "main", "a newer one")
    for wanted, last in ((["main"], "a newer one"), ([first["id"]], "FAILED: Promote the standby")):
        assert cli.main(["logs", *wanted]) == exits.DONE
        assert capsys.readouterr().out.rstrip().endswith(last)
    assert cli.main(["logs", "pause of other"]) == exits.DONE
    assert "of another site" in capsys.readouterr().out
    assert cli.main(["logs"]) == exits.DONE
    assert str(second["id"]) in capsys.readouterr().out
    assert cli.main(["logs", "nain"]) == exits.REFUSED
    assert "There is no run of nain" in capsys.readouterr().err


@pytest.mark.servers
def test_of_a_run_in_prefect_and_one_without_it_the_newer_one_is_told(
    api: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    kept("broken", "an hour before", later_s=-3600)
    begun(api, "broken", "Prefect is back")
    assert cli.main(["logs", "broken"]) == exits.DONE
    assert "Prefect is back" in capsys.readouterr().out
    kept("broken", "promoted without it", later_s=60)
    assert cli.main(["logs", "broken"]) == exits.DONE
    told = capsys.readouterr().out
    assert "promoted without it" in told
    assert "Prefect is back" not in told


def test_while_prefect_is_dead_the_run_without_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        assert cli.main(["logs", "main"]) == exits.NO_PREFECT
        kept("other", "of another site")
        run = kept("main", "node-b was promoted")
        capsys.readouterr()
        for wanted in ("main", run.name):
            assert cli.main(["logs", wanted]) == exits.DONE
            told = capsys.readouterr()
            assert told.out.splitlines()[0].startswith("failover of main, ")
            assert "without Prefect: Completed: node-b leads" in told.out
            assert told.out.splitlines()[1:] == ["node-b was promoted"]
            assert "Prefect cannot be asked" in told.err


def test_what_is_due_is_told_the_nearest_first_and_what_is_overdue_before_it() -> None:
    now = datetime(2026, 11, 26, 3, tzinfo=UTC)
    due = {
        "nightly-backup": now + timedelta(hours=23),
        "check": now + timedelta(minutes=4),
        "restore-drill": now - timedelta(hours=1),
    }
    assert describe_next(due, now) == (
        "next runs: restore-drill was due at 02:00 UTC, check in 0:04:00, nightly-backup in 23:00:00"
    )
    assert describe_next({}, now) == "next runs: nothing runs by schedule"


def test_a_status_without_prefect_says_that_it_does_not_know_what_is_due() -> None:
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        assert next_runs("main") == "next runs: Prefect cannot be asked (ConnectError)"
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert "PrefectAddressMissing" in next_runs("main")
    with somebody_else() as address, temporary_settings({PREFECT_API_URL: address}):
        assert "cannot be asked" in next_runs("main")


@pytest.mark.servers
def test_what_runs_next_is_asked_of_prefect_and_a_schedule_that_was_paused_is_missed(
    api: httpx.Client, tmp_path: Path
) -> None:
    # A name of its own: the server is that of other tests too.
    site = make_site(tmp_path).model_copy(update={"name": "scheduled"})
    save_site(site)
    made = {name: str(entry(name).deployment((site,)).apply()) for name in wanted_schedules(site)}
    assert set(made) == {"check", "nightly-backup", "restore-drill"}
    for deployment in made.values():
        api.post(f"deployments/{deployment}/schedule", json={}).raise_for_status()
    due = due_runs(api, site.name)
    assert set(due) == set(made)
    assert next(iter(due)) == "check"
    assert timedelta(0) < due["check"] - datetime.now(UTC) <= timedelta(minutes=15)
    assert due_runs(api, "nain") == {}
    place = f"deployments/{made['nightly-backup']}"
    (schedule,) = api.get(place).raise_for_status().json()["schedules"]
    api.patch(f"{place}/schedules/{schedule['id']}", json={"active": False}).raise_for_status()
    (missed,) = [link for link in looks.look_at_prefect(api, site) if link.name == "schedules"]
    assert (missed.holds, missed.said) == (Holds.WARNING, "not due: nightly-backup")
