"""One lab for all lab tests, on a network of its own: a demo that stands on this machine is not disturbed."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.orchestrator import Orchestrator
from lab.site_lab import Lab
from tests.lab.faults.processes import Nursery
from tests.lab.site import LabSite

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.lab)
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """What takes seconds first; then what leaves bare nodes; then bootstrap and boot, and what needs their site."""
    if not item.path.is_relative_to(_HERE):
        return 0
    if item.path.name in ("test_adopt.py", "test_from_nothing.py", "test_oldest_release.py"):
        return 1
    return 2 if "boot" in item.path.name else 3


@pytest.fixture(scope="session")
def standing_lab() -> Lab:
    """The lab of the tests, brought up once; it stays for the next run, which is then warm.

    `HARBOR_HA_TEST_LAB` names another one, so that two people can test on one machine at the same time.
    """
    lab = Lab(os.environ.get("HARBOR_HA_TEST_LAB", "test"))
    lab.up()
    return lab


@pytest.fixture
def lab(standing_lab: Lab) -> Iterator[Lab]:
    """The lab with a whole network and power everywhere, before and after the test."""
    _repair(standing_lab)
    yield standing_lab
    _repair(standing_lab)


@pytest.fixture(scope="session")
def orchestrator(standing_lab: Lab) -> Orchestrator:
    """A Prefect server with the lab's site saved. Like the lab it stays; nothing runs by schedule."""
    made = Orchestrator(standing_lab.name)
    made.up(standing_lab.site_file, standing_lab.name, serve=False)
    return made


@pytest.fixture(scope="session")
def nursery(orchestrator: Orchestrator, standing_lab: Lab) -> Iterator[Nursery]:
    """Forks flows' processes, which talk to the orchestrator's server."""
    made = Nursery(orchestrator.environment, standing_lab.topology.directory / "runs")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def lab_site(lab: Lab, nursery: Nursery) -> LabSite:
    """The lab's site, whether it stands or not."""
    return LabSite(lab, nursery)


@pytest.fixture
def site(lab_site: LabSite, orchestrator: Orchestrator) -> LabSite:
    """The site, standing; where its nodes are bare it is bootstrapped first, which takes a minute or two."""
    if not lab_site.stands():
        # A disaster has saved what was left of the site under the same name.
        orchestrator.up(lab_site.lab.site_file, lab_site.name, serve=False)
        lab_site.bootstrap().result  # noqa: B018
    return lab_site


@pytest.fixture
def fresh_nodes(lab: Lab) -> Callable[..., None]:
    """Make nodes bare again, `fresh_nodes("node-a", "node-b")`, and empty what they share unless told not to."""

    def make_bare(*nodes: str, shared: bool = True) -> None:
        lab.recreate(*nodes)
        if shared:
            lab.empty_shared()

    return make_bare


def _repair(lab: Lab) -> None:
    lab.heal()
    for machine in lab.machines():
        if not lab.is_running(machine):
            lab.start(machine)
