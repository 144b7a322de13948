"""The stage of the fault suite, and its table at the end of the session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.faults.stage import Stage
from lab.site_lab import Lab
from tests.lab.faults import table
from tests.lab.faults.secret_scan import CommandLines, secrets_of


@pytest.fixture(scope="session")
def stage(standing_lab: Lab) -> Iterator[Stage]:
    """A bootstrapped site; every scenario begins by bringing it back to a healthy pair."""
    made = Stage(standing_lab)
    made.open()
    yield made
    made.close()


@pytest.fixture(scope="session", autouse=True)
def command_lines(stage: Stage) -> Iterator[CommandLines]:
    """A watch over all command lines while the suite runs."""
    watch = CommandLines(secrets_of(stage))
    yield watch
    watch.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not table.ROWS:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(table.render())
    page = os.environ.get("HARBOR_HA_FAULTS_PAGE")
    if page:
        table.write_page(Path(page), len(terminalreporter.stats.get("failed", [])))
    again = os.environ.get("HARBOR_HA_FAULTS_AGAIN")
    if again:
        table.write_again(Path(again))
