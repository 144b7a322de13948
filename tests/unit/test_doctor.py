"""Every link of the chain that is broken is named, with what to do; a chain that holds says so."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from blocks import HarborSite
from blocks.prefect_api import prefect_api
from blocks.store import save_site, write_copy
from deployments import cli, exits, runs
from deployments.catalogue import entry
from deployments.doctor import command, links, looks
from deployments.doctor.links import Holds
from flows.rules.table import Decision
from flows.rules.verdict import Verdict
from tests.unit.harbor_site import make_dark_site

NOW = datetime(2026, 11, 26, 3, tzinfo=UTC)
METRICS = """\
# HELP harbor_ha_look_age_seconds …
harbor_ha_look_age_seconds{site="main"} 0.4
harbor_ha_prefect_takes_calls{site="main"} 1.0
harbor_ha_primary_lost{node="node-a",site="main"} 0.0
harbor_ha_look_age_seconds{site="other"} 300.0
harbor_ha_round_seconds{site="main"} odd
"""


class TestTheSite:
    def test_a_sound_one_is_ok_and_a_down_one_is_broken_with_what_to_do_now(self) -> None:
        sound = links.nodes_link(Decision(Verdict.HEALTHY, ""), [])
        assert [link.holds for link in sound] == [Holds.OK, Holds.OK]
        down = Decision(Verdict.DOWN, "no primary", ("No node is primary.",), ("harbor-ha run failover",))
        (first, _) = links.nodes_link(down, [])
        assert first.holds is Holds.BROKEN
        assert "No node is primary." in str(first)

    def test_a_witness_that_does_not_see_is_named(self) -> None:
        judged = Decision(Verdict.DEGRADED, "x", ("no standby",), ("rejoin",))
        site, witness = links.nodes_link(judged, ["Redis has no client at node-b's addresses (10.0.0.2)"])
        assert (site.holds, witness.holds) == (Holds.WARNING, Holds.WARNING)
        assert "node-b" in witness.said


@pytest.mark.parametrize(
    ("kind", "command", "found", "trouble", "holds", "said"),
    [
        ("command", ["/bin/stop", "{node}"], True, [], Holds.OK, "/bin/stop is here"),
        ("command", ["/bin/stop", "{node}"], False, [], Holds.BROKEN, "is not a program"),
        ("command", None, False, [], Holds.NOT_SET_UP, "attestation"),
        ("aliyun-ecs", None, False, [], Holds.OK, "rehearsed"),
        ("aliyun-ecs", None, False, ["node-a could not be switched off: RAM"], Holds.BROKEN, "RAM"),
    ],
)
def test_the_fence(
    kind: str, command: list[str] | None, found: bool, trouble: list[str], holds: Holds, said: str
) -> None:
    link = links.fence_link(kind, command, found, trouble)
    assert link.holds is holds
    assert said in link.said


class TestTheWatcher:
    def test_its_numbers_of_one_site_are_read_and_odd_ones_are_left_out(self) -> None:
        assert links.samples_of(METRICS, "main") == {"look_age_seconds": 0.4, "prefect_takes_calls": 1.0}

    @pytest.mark.parametrize(
        ("samples", "said"),
        [
            (None, "nothing answers"),
            ({}, "does not watch main"),
            ({"look_age_seconds": 31.0}, "31 s ago"),
            ({"look_age_seconds": 0.2, "prefect_takes_calls": 0.0}, "did not take its last call"),
        ],
    )
    def test_what_is_wrong_with_it_is_told(self, samples: dict[str, float] | None, said: str) -> None:
        link = links.watcher_link("main", 9096, samples)
        assert link.holds is Holds.BROKEN
        assert said in link.said
        assert link.remedy


class TestSchedulesAndRuns:
    def test_nothing_scheduled_and_something_overdue_are_broken(self) -> None:
        assert links.schedules_link("main", {}, ["check"], NOW).holds is Holds.BROKEN
        late = links.schedules_link("main", {"check": NOW - timedelta(minutes=20)}, ["check"], NOW)
        assert late.holds is Holds.BROKEN
        assert "overdue: check" in late.said
        soon = {"nightly-backup": NOW + timedelta(hours=20), "check": NOW + timedelta(minutes=4)}
        wanted = ["nightly-backup", "check"]
        said = links.schedules_link("main", soon, wanted, NOW).said
        assert said == "check in 4 min, nightly-backup in 20 h"

    def test_a_schedule_that_was_paused_or_taken_away_is_named_beside_those_that_run(self) -> None:
        link = links.schedules_link(
            "main", {"check": NOW + timedelta(minutes=4)}, ["nightly-backup", "check"], NOW
        )
        assert link.holds is Holds.WARNING
        assert "not due: nightly-backup" in link.said

    def test_a_call_holds_only_when_the_failover_has_seen_that_the_primary_is_sound(self) -> None:
        sound = "Nothing was done: node-a answers as a writable primary."
        assert links.drill_link("a call", "COMPLETED", sound, 3).holds is Holds.OK
        for state, said in (("COMPLETED", "Nothing was done: the site is paused."), ("FAILED", "x")):
            assert links.drill_link("a call", state, said, 3).holds is Holds.BROKEN
        waiting = links.drill_link("a call", "SCHEDULED", "", 90)
        assert waiting.holds is Holds.BROKEN
        assert "runner" in waiting.remedy

    def test_a_runner_that_nobody_has_started_is_named(self) -> None:
        assert [links.runner_link(ready).holds for ready in (None, False, True)] == [
            Holds.BROKEN,
            Holds.BROKEN,
            Holds.OK,
        ]


class TestPrometheus:
    def test_a_shipped_rule_that_it_lacks_is_named(self) -> None:
        wanted = links.rule_names(yaml.safe_load(looks.RULES.read_text()))
        assert looks.ALERT in wanted
        answer = {"data": {"groups": [{"rules": [{"type": "alerting", "name": n} for n in wanted[1:]]}]}}
        link = links.rules_link(links.rule_names(answer), wanted, True)
        assert link.holds is Holds.BROKEN
        assert wanted[0] in link.said

    def test_rules_without_the_watcher_as_a_target_are_silent_for_ever(self) -> None:
        assert links.rules_link(["a"], ["a"], False).holds is Holds.BROKEN
        assert links.rules_link(["a"], ["a"], True).holds is Holds.OK

    def test_something_else_at_its_address_is_told(self) -> None:
        assert looks.look_at_prometheus("http://127.0.0.1:9").holds is Holds.BROKEN


def test_backups_that_are_old_missing_or_never_drilled_are_told() -> None:
    fresh, old = NOW - timedelta(hours=5), NOW - timedelta(days=12)
    assert [link.holds for link in links.backups_link(None, None, NOW)] == [Holds.BROKEN]
    assert [link.holds for link in links.backups_link(fresh, None, NOW)] == [Holds.OK, Holds.WARNING]
    assert [link.holds for link in links.backups_link(old, old, NOW)] == [Holds.BROKEN, Holds.WARNING]
    assert [link.holds for link in links.backups_link(fresh, fresh, NOW)] == [Holds.OK, Holds.OK]


def test_what_is_not_set_up_is_no_fault_and_one_broken_link_is_all_of_it() -> None:
    made = [links.Link("x", holds, "") for holds in (Holds.OK, Holds.NOT_SET_UP)]
    assert links.worst(made) is Holds.NOT_SET_UP
    assert links.worst([*made, links.Link("y", Holds.WARNING, "")]) is Holds.WARNING
    assert links.worst([links.Link("y", Holds.BROKEN, ""), *made]) is Holds.BROKEN
    assert links.worst([]) is Holds.OK


@pytest.fixture
def metrics() -> Iterator[int]:
    """A port that tells what a watcher tells."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def test_the_watcher_is_asked_and_so_is_a_port_where_nobody_is(metrics: int) -> None:
    assert looks.look_at_watcher("main", metrics).holds is Holds.OK
    assert looks.look_at_watcher("other", metrics).holds is Holds.BROKEN
    assert looks.look_at_watcher("main", 9).holds is Holds.BROKEN


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HarborSite:
    """A saved site of which every machine is off."""
    monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
    made = make_dark_site(tmp_path)
    write_copy(made)
    return made


def deploy_where_no_runner_ever_was(flow: str) -> None:
    """Make a deployment anew: Prefect calls one READY for a minute after a runner asked for its runs.

    The runner of another test, on the server that all tests of a process share, was that runner once.
    """
    deployment = entry(flow).deployment()
    with prefect_api(timeout=30) as api, suppress(runs.RunRefused):
        api.delete(f"deployments/{runs.find_deployment(api, flow).id}").raise_for_status()
    deployment.apply()


@pytest.mark.servers
def test_a_site_that_is_down_and_flows_that_nobody_serves_are_named_link_by_link(
    site: HarborSite, prefect_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_site(site)
    deploy_where_no_runner_ever_was("failover")
    assert cli.main(["doctor", "example", "--metrics-port", "9"]) == exits.FAILED
    lines = capsys.readouterr().out.splitlines()
    broken = {line.partition(":")[0].split()[-1] for line in lines if line.startswith("broken")}
    assert {"site", "watcher", "runner", "schedules"} <= broken, lines
    assert any("not tried: the site is not sound" in line for line in lines), (
        "a real failover would have begun"
    )
    with prefect_api(timeout=30) as api:
        asked = {"deployments": {"name": {"any_": ["failover"]}}}
        assert api.post("flow_runs/filter", json=asked).json() == []


def test_a_flow_that_prefect_does_not_know_is_no_prefect_that_does_not_answer(
    site: HarborSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known_by_nobody(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[])

    transport = httpx.MockTransport(known_by_nobody)
    monkeypatch.setattr(
        command, "prefect_api", lambda timeout: httpx.Client(transport=transport, base_url="http://prefect")
    )
    monkeypatch.setattr(looks, "look_at_nodes", lambda _: ([], "node-a"))
    found = {link.name: link for link in command.examine(site, 9, "", "")}
    assert found["Prefect"].holds is Holds.OK
    assert found["a call"].holds is Holds.BROKEN
    assert "no deployment failover" in found["a call"].said
