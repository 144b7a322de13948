"""Prefect is dead and the site too: the flows run without it, and say so."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from blocks import HarborSite
from blocks.prefect_api import prefect_api
from blocks.store import write_copy
from deployments import cli, exits
from deployments.kept_runs import kept_runs, publish_kept
from tests.unit.harbor_site import make_dark_site

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HarborSite:
    """A saved site of which every machine is off: on its ports of loopback nobody listens."""
    monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
    made = make_dark_site(tmp_path)
    write_copy(made)
    return made


@contextmanager
def mute_prefect() -> Iterator[tuple[str, list[object]]]:
    """The address of a Prefect server that takes connections and never answers, and who has come."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    came.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/api", came
        server.shutdown(socket.SHUT_RDWR)


def harbor_ha(*arguments: str, program: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; with a program, by that."""
    run = ["-c", program] if program else ["-m", "deployments.cli"]
    return subprocess.run(
        [sys.executable, *run, *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.mark.servers
def test_a_failover_looks_decides_and_refuses_and_asks_no_prefect_for_anything(site: HarborSite) -> None:
    with mute_prefect() as (address, came):
        # Nor does it need a place of Prefect's that can be written.
        done = harbor_ha(
            *("run", "failover", "--site", "example", "--without-prefect"),
            *("--param", "expected_primary=node-x", "--param", "reason=3 a.m."),
            PREFECT_API_URL=address,
            PREFECT_HOME="/proc/nowhere",
        )
    assert done.returncode == exits.REFUSED, done.stderr
    assert came == []
    assert "This run is not in Prefect" in done.stderr
    assert done.stdout.startswith("# failover of example")
    assert "Traceback" not in done.stderr
    (run,) = kept_runs("example")
    assert (run.flow, run.state, run.ending) == ("failover", "FAILED", "Refused")
    assert run.report.read_text() in done.stdout
    assert "Look at all nodes" in run.log.read_text()
    for path in (run.report, run.log):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(run.log.parent.stat().st_mode) == 0o700


@pytest.mark.servers
def test_a_check_of_a_site_that_is_down_is_no_success_and_a_directory_that_cannot_be_written_is_told(
    site: HarborSite, tmp_path: Path
) -> None:
    (tmp_path / "home" / "reports").write_text("not a directory: as a disk that is full, or read-only")
    done = harbor_ha(
        "run", "check", "--site", "example", "--without-prefect", PREFECT_API_URL="http://127.0.0.1:9/api"
    )
    assert done.returncode == exits.FAILED, done.stderr
    assert "# check of example" in done.stdout + done.stderr, "the report is on the terminal all the same"
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


# The two nodes are directories of this machine. With DIE_AFTER the process is killed when nodes have written so often.
TWO_NODES = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import tasks.observation.look, tasks.step
from deployments import cli
from tests.unit.harbor_site import NodeInDirectory
written = 0
class Node(NodeInDirectory):
    silent, heard, noise = False, True, ""
    def python(self, source, payload=None, **options):
        global written
        if isinstance(payload, dict):
            here = (("state_dir", str(self.state)), ("nas_path", None), ("shared_files", {{}}))
            payload = payload | {{name: value for name, value in here if name in payload}}
        answer = super().python(source, payload, **options)
        if isinstance(payload, dict) and payload.get("action") == "put":
            written += 1
            if written == int(os.environ.get("DIE_AFTER", "0")):
                os.kill(os.getpid(), signal.SIGKILL)
        return answer
def connect(node, via=None):
    state = Path(os.environ["NODES"]) / node.name
    state.mkdir(parents=True, exist_ok=True)
    return Node(node.name, state)
tasks.step.connect = tasks.observation.look.connect = connect
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.servers
def test_a_run_that_was_killed_is_run_again_and_says_the_same(site: HarborSite, tmp_path: Path) -> None:
    pause = ("run", "pause", "--site", "example", "--without-prefect", "--param", "reason=no Prefect")
    environment = {"NODES": str(tmp_path / "nodes"), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    killed = harbor_ha(*pause, program=TWO_NODES, DIE_AFTER="2", **environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (first,) = kept_runs()
    assert first.killed
    assert "was killed" in first.describe()
    assert "Look at all nodes" in first.log.read_text(), "what it did until then is not lost"
    for _ in range(2):
        again = harbor_ha(*pause, program=TWO_NODES, **environment)
        assert again.returncode == exits.DONE, again.stderr
        assert "example is paused on node-a, node-b" in again.stdout
    assert {path.parent.name for path in tmp_path.glob("nodes/*/paused.json")} == {"node-a", "node-b"}


@pytest.mark.servers
def test_it_takes_the_same_lock_refuses_by_the_same_rules_and_puts_back_what_it_began(
    site: HarborSite, tmp_path: Path
) -> None:
    asked = (
        "run",
        "failover",
        "--site",
        "example",
        "--without-prefect",
        "--param",
        "expected_primary=node-a",
    )
    environment = {"NODES": str(tmp_path / "nodes"), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    refused = harbor_ha(*asked, program=TWO_NODES, **environment)
    assert refused.returncode == exits.REFUSED, refused.stderr
    assert "## Refused because" in refused.stdout
    nodes = [tmp_path / "nodes" / name for name in ("node-a", "node-b")]
    assert [json.loads((node / "operation.json").read_text())["phase"] for node in nodes] == ["aborted"] * 2
    assert not [node for node in nodes if (node / "lock.json").exists()]
    now = time.time()
    held = {"op_id": "op-7", "holder": "other:1:2:3:4:5", "taken_at": now, "expires_at": now + 50}
    (nodes[1] / "lock.json").write_text(json.dumps(held))
    beside = harbor_ha(*asked, program=TWO_NODES, **environment)
    assert beside.returncode == exits.DONE, beside.stderr
    assert "of process 1 on other is in progress" in beside.stdout


@pytest.mark.parametrize(
    ("flow", "given", "why"),
    [
        ("failover", [], "'expected_primary' is a required property"),
        ("failover", ["expected_primary=node-a", "dryrun=true"], "did you mean dry_run?"),
        ("failover", ["expected_primary=node-a", "dry_run=maybe"], "dry_run"),
        ("disaster-restore", ["target=node-a", "images=tape"], "'tape' is not one of"),
        ("nightly-backup", [], "does not run without Prefect"),
    ],
)
def test_what_the_deployment_does_not_take_is_refused_before_anything_is_done(
    flow: str, given: list[str], why: str, site: HarborSite, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = [word for text in given for word in ("--param", text)]
    assert cli.main(["run", flow, "--site", "example", "--without-prefect", *parameters]) == exits.REFUSED
    assert why in capsys.readouterr().err
    assert kept_runs() == []


def test_a_site_of_which_no_copy_is_here_is_refused(
    site: HarborSite, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "check", "--site", "nain", "--without-prefect"]) == exits.REFUSED
    assert "local copy of site nain cannot be read" in capsys.readouterr().err


@pytest.mark.servers
def test_the_report_is_shown_in_prefect_once_it_answers_and_only_once(
    site: HarborSite, prefect_server: str
) -> None:
    asked = ("run", "failover", "--site", "example", "--param", "expected_primary=node-x")
    assert harbor_ha(*asked, "--without-prefect").returncode == exits.REFUSED
    with httpx.Client(base_url="http://127.0.0.1:9/api") as dead:
        assert publish_kept(dead) == 0
    assert not kept_runs()[0].published
    with prefect_api(timeout=30) as api:
        assert publish_kept(api) == 1
        assert publish_kept(api) == 0
        key = {"artifacts": {"key": {"any_": ["failover-example"]}}}
        (shown,) = api.post("artifacts/filter", json=key).raise_for_status().json()
    assert "run without Prefect" in shown["description"]
    assert "# failover of example" in shown["data"]
    assert kept_runs()[0].published
