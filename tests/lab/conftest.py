"""One lab for all lab tests, on a network of its own: a demo that stands on this machine is not disturbed."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.site_lab import Lab

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def standing_lab() -> Lab:
    """The lab of the tests, brought up once; it stays for the next run, which is then warm.

    `HARBOR_HA_TEST_LAB` names another one, so that two people can test on one machine at the same time.
    """
    name = os.environ.get("HARBOR_HA_TEST_LAB", "test")
    lab = Lab(name, "172.30.91.0/24" if name == "test" else None)
    lab.up()
    return lab


@pytest.fixture
def lab(standing_lab: Lab) -> Iterator[Lab]:
    """The lab with a whole network and power everywhere, before and after the test."""
    _repair(standing_lab)
    yield standing_lab
    _repair(standing_lab)


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
