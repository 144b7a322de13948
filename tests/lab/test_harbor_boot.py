"""Harbor on a node whose Docker engine died, or was upgraded: whole again with nobody's help."""

from lab.faults.stage import wait_for
from tasks.harbor.api import wait_healthy
from tests.lab.site import LabSite

NODE = "node-b"


def running(site: LabSite) -> set[str]:
    """The names of the containers that run on the node."""
    return set(site.shell(NODE, "docker ps --format '{{.Names}}'", check=False).split())


def engine(site: LabSite) -> str:
    """The process of the node's engine; "0" while there is none."""
    return site.shell(NODE, "systemctl show --property MainPID --value docker")


def test_all_of_harbor_runs_again_after_its_docker_engine_was_killed(site: LabSite) -> None:
    before, killed = running(site), engine(site)
    assert len(before) >= 7
    site.shell(NODE, "systemctl kill --signal KILL docker")
    wait_for(lambda: engine(site) not in ("0", killed), 60.0, "systemd does not start the engine again")
    wait_for(lambda: running(site) == before, 120.0, lambda: f"missing: {before - running(site)}")
    wait_healthy(site.site, site.host(NODE), timeout=60)


def test_what_was_stopped_on_purpose_stays_stopped_when_the_node_looks_again(site: LabSite) -> None:
    before = running(site)
    site.shell(NODE, "docker stop -t 1 harbor-portal && systemctl start harbor-ha-harbor")
    wait_for(
        lambda: site.shell(NODE, "systemctl is-active harbor-ha-harbor", check=False) == "inactive", 120.0
    )
    try:
        assert "harbor-portal" not in running(site)
    finally:
        site.shell(NODE, "docker start harbor-portal")
    wait_for(lambda: running(site) == before, 60.0)
    wait_healthy(site.site, site.host(NODE), timeout=60)
