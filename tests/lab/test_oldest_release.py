"""The oldest release that nodes may run, at every run of the tests; `make test-matrix` goes further, on all of them.

No more than bootstrap, failover and rejoin: every minute here is one of each run of the tests.

The oldest and not another one each time: it differs the most (Python 3.9, PostgreSQL 13, compose 1, systemd 247), and a
test that fails today must fail tomorrow.
"""

from collections.abc import Iterator

import pytest

from lab import apt
from lab.faults.processes import Nursery
from lab.orchestrator import Orchestrator
from lab.site_lab import Lab
from lab.topology import PAIR
from tasks.harbor.proof import push_and_pull
from tests.lab.site import LabSite

OLDEST = next(iter(apt.RELEASES))


@pytest.fixture
def oldest(standing_lab: Lab, orchestrator: Orchestrator, nursery: Nursery) -> Iterator[LabSite]:
    """The pair, bare, on the oldest release; afterwards bare on the usual one again."""
    own = apt.this_distribution()
    usual = apt.default_release(own)
    if usual not in apt.RELEASES:
        pytest.skip(f"nodes cannot run Debian on a machine of {usual}")
    if not apt.is_served(apt.chosen(OLDEST, own), own):
        pytest.skip(f"the package sources of this machine do not have {OLDEST} any more")

    def install(release: str) -> None:
        standing_lab.heal()
        standing_lab.recreate(*PAIR, release=release)
        standing_lab.empty_shared()
        orchestrator.up(standing_lab.site_file, standing_lab.name, serve=False)

    install(OLDEST)
    yield LabSite(standing_lab, nursery)
    install(usual)


@pytest.mark.timeout(1200)
def test_the_oldest_release_carries_a_site_through_a_failover_and_back(oldest: LabSite) -> None:
    oldest.bootstrap().result  # noqa: B018
    oldest.flow("check").wait(120).result  # noqa: B018

    oldest.lab.stop("node-a")
    assert "node-b is the primary" in oldest.flow("failover", expected_primary="node-a").wait(300).headline
    oldest.lab.start("node-a")
    assert "node-a" in oldest.flow("rejoin", node="node-a").wait(300).headline

    assert "pulled through" in push_and_pull(oldest.site, name="the oldest release").detail
