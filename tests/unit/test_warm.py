"""A served run begins in a process that has imported everything, and is a run like any other."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.prefect_api import prefect_api
from deployments import cli, exits
from deployments.catalogue import entry
from deployments.choices import with_choices
from deployments.runs import find_deployment
from deployments.warm import PRELOADED
from tests.unit.example_deployment import EXAMPLE

pytestmark = pytest.mark.servers

REPOSITORY = Path(__file__).parents[2]
FAILOVER = "flows.failover.failover"

SERVE = f"""
from deployments.serve import prepare_environment, serve_all
prepare_environment()
import deployments.catalogue as catalogue
from tests.unit.example_deployment import EXAMPLE
failover = [entry for entry in catalogue.CATALOGUE if entry.entrypoint == {FAILOVER!r}]
catalogue.CATALOGUE = (EXAMPLE, *failover)
serve_all([], None)
"""

THREADS = f"""
import os
from deployments.serve import prepare_environment
prepare_environment()
import {PRELOADED}
print(len(os.listdir("/proc/self/task")))
"""

LATE = f"""
import sys
from deployments.serve import prepare_environment
prepare_environment()
import {PRELOADED}
from prefect import flow, task
@task
def step(): pass
@flow
def steps(site): step(); step.submit().result()
before = set(sys.modules)
steps("a")
print("late:", *sorted(set(sys.modules) - before))
"""


@pytest.fixture(scope="module")
def runner(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The log of a runner that serves the example and the real failover."""
    EXAMPLE.deployment().apply()
    log = tmp_path_factory.mktemp("runner") / "runner.log"
    environment = {
        **os.environ,
        "PREFECT_API_URL": prefect_server,
        "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "HARBOR_HA_HOME": str(log.parent),
    }
    with (
        log.open("wb") as written,
        subprocess.Popen(
            [sys.executable, "-c", SERVE], env=environment, cwd=REPOSITORY, stdout=written, stderr=written
        ) as process,
    ):
        yield log
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_a_served_flow_is_forked_with_everything_imported_and_its_report_printed(
    runner: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["run", "example", "--site", "a", "--param", "dry_run=true", "--watch", "--timeout", "90"]
    assert cli.main(argv) == exits.DONE, runner.read_text()
    said = capsys.readouterr().out
    assert "# example of a, dry_run=True" in said
    assert "had failover: True" in said
    for whose in ("command", "parent"):
        line = next(line for line in said.splitlines() if line.startswith(f"{whose}: "))
        assert "multiprocessing.forkserver" in line, "Prefect starts its runs in another way now"
    _await_logged("example of a looked around", runner)


def _await_logged(line: str, runner: Path) -> None:
    """Wait until the server has a line of the log; other runs of the session have theirs there."""
    # Prefect sends lines in batches, a new one each two seconds.
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with prefect_api(timeout=30) as api:
            logs = (
                api.post("logs/filter", json={"sort": "TIMESTAMP_DESC", "limit": 200})
                .raise_for_status()
                .json()
            )
        if line in {logged["message"] for logged in logs}:
            return
        time.sleep(0.2)
    raise AssertionError(runner.read_text())


def _offer_nothing(name: str) -> None:
    """Have the form take every site, as one of an older runner does: whether there is one, the flow finds out."""
    with prefect_api(timeout=30) as api:
        place = f"deployments/{find_deployment(api, name).id}"
        schema = api.get(place).raise_for_status().json()["parameter_openapi_schema"]
        changed = with_choices(schema, entry(name).node, {})
        api.patch(place, json={"parameter_openapi_schema": changed}).raise_for_status()


def test_a_refused_failover_is_refused_in_its_state_and_no_traceback_is_in_the_log(
    runner: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _offer_nothing("failover")
    argv = ["run", "failover", "--site", "nowhere", "--param", "expected_primary=node-a"]
    assert cli.main([*argv, "--watch", "--timeout", "90"]) == exits.REFUSED, runner.read_text()
    assert "Refused" in capsys.readouterr().err
    assert "Traceback" not in runner.read_text()


def test_what_is_forked_has_one_thread() -> None:
    # A second one could hold a lock at the moment of the fork, which the child would wait for without an end.
    made = subprocess.run(
        [sys.executable, "-c", THREADS],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert made.stdout.strip() == "1", made.stderr


def test_the_first_run_imports_nothing_big_any_more(prefect_server: str) -> None:
    """Prefect's engines and a web framework came with each run's beginning: 0.3 to 0.7 s of every failover."""
    ran = subprocess.run(
        [sys.executable, "-c", LATE],
        cwd=REPOSITORY,
        env={**os.environ, "PREFECT_API_URL": prefect_server},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (line,) = (line for line in ran.stdout.splitlines() if line.startswith("late:"))
    big = {"anyio", "fastapi", "flows", "paramiko", "prefect", "psycopg", "pydantic", "starlette", "tasks"}
    assert not [name for name in line.split()[1:] if name.partition(".")[0] in big]
