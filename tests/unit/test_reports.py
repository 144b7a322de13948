"""What is read at three in the morning: names and reasons, and nothing of the machinery."""

from types import SimpleNamespace
from typing import cast

import pytest

from blocks import HarborSite
from flows.check import describe_served
from flows.machinery.protocol import Protocol, StepRecord
from flows.machinery.report import render
from flows.machinery.sight import describe_decision
from flows.rules.table import Decision
from tasks.harbor.on_node import repoint
from tasks.hosts.connection import _shown
from tasks.node_program import node_program
from tasks.on_node.lib import last_words
from tasks.outcome import unchanged

# As docker-compose 1.29 ends when the engine is down; the first frames are cut off.
COMPOSE_FAILED = """ker/api/client.py", line 237, in _get
    return self.get(url, **self._set_request_timeout(kwargs))
requests.exceptions.ConnectionError: ('Connection aborted.', ConnectionRefusedError(111, 'Connection refused'))

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/usr/bin/docker-compose", line 33, in <module>
    sys.exit(load_entry_point('docker-compose==1.29.2', 'console_scripts', 'docker-compose')())
docker.errors.DockerException: Error while fetching server API version: Connection refused
"""


def dry_run(*records: StepRecord) -> Protocol:
    run = Protocol("failover", cast(HarborSite, SimpleNamespace(name="main")), dry_run=True)
    run.records.extend(records)
    return run


def test_a_dry_run_says_how_much_it_would_do_if_anything() -> None:
    look = StepRecord("Look at all nodes", (), 0.0, 0.1, unchanged("node-a primary"))
    assert "Dry run: nothing was changed.\n" in render(dry_run(look), "Nothing is due.")
    one = StepRecord("Promote the standby", ("node-b",), 0.0, 0.0, None)
    assert "Steps that would be run: 1." in render(dry_run(look, one), "Would promote.")


@pytest.mark.parametrize(
    ("kind", "rule", "told"),
    [
        ("HEALTHY", "healthy", "HEALTHY"),
        ("DOWN_HOST_UP", "down, host up", "DOWN_HOST_UP"),
        ("PROMOTE", "seen stopped, lost since", "PROMOTE (seen stopped, lost since)"),
    ],
)
def test_the_rule_of_a_decision_is_told_where_it_says_more(kind: str, rule: str, told: str) -> None:
    assert describe_decision(Decision(kind, rule)) == told


def test_whom_the_load_balancer_serves_is_told_by_name() -> None:
    assert describe_served({"node-b": False, "node-a": True}) == "node-a is served, node-b is not served"
    assert describe_served(None) == "it cannot be asked"


def test_of_a_traceback_only_its_reason_is_told() -> None:
    assert last_words(COMPOSE_FAILED) == COMPOSE_FAILED.splitlines()[-1]
    assert last_words("Cannot connect to the Docker daemon\n") == "Cannot connect to the Docker daemon"


def test_a_program_of_ours_is_told_by_its_name() -> None:
    words = _shown(["python3", "-c", node_program(repoint)])
    assert words == ["python3", "-c", "# tasks.harbor.on_node.repoint…"]
