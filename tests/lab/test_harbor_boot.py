"""Harbor on a node whose Docker engine died, or was upgraded: whole again with nobody's help, and with one core."""

from collections.abc import Iterator
from contextlib import contextmanager

from lab.faults.stage import wait_for
from tasks.harbor.api import wait_healthy
from tasks.harbor.repoint import repoint_core, restart_jobservice, start_next
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


def core(site: LabSite, form: str) -> str:
    """Something of core's container as the engine describes it."""
    return site.shell(NODE, f"docker inspect -f '{form}' harbor-core")


@contextmanager
def next_core(site: LabSite) -> Iterator[str]:
    """A next core on the node, for the database that its Harbor does not use, which is the address given."""
    now = core(site, "{{json .Config.Env}}").partition("POSTGRESQL_HOST=")[2].partition('"')[0]
    other = next(node.address for node in site.site.nodes if node.runs_postgres and node.address != now)
    host = site.host(NODE)
    try:
        assert "answers" in start_next(site.site, host, database_host=other, answer_s=30.0).detail
        yield other
    finally:
        repoint_core(site.site, host, database_host=now)
        restart_jobservice(site.site, host, database_host=now)
        wait_healthy(site.site, host, timeout=60)


def test_a_next_core_that_a_killed_run_left_does_not_come_back_with_the_engine(site: LabSite) -> None:
    before = running(site)
    with next_core(site):
        assert running(site) == {*before, "harbor-core.next"}
        site.shell(NODE, "systemctl restart docker")
        wait_for(lambda: running(site) == before, 120.0, lambda: f"not as before: {before ^ running(site)}")
        wait_healthy(site.site, site.host(NODE), timeout=60)
        wait_for(lambda: "harbor-core.next" not in site.shell(NODE, "docker ps -a"), 60.0, "it is left")


def test_the_next_core_serves_as_soon_as_the_old_one_is_removed_and_is_one_that_compose_would_make(
    site: LabSite,
) -> None:
    before, old, policy = running(site), core(site, "{{.Id}}"), "{{.HostConfig.RestartPolicy.Name}}"
    always = core(site, policy)
    with next_core(site) as other:
        assert core(site, "{{.Id}}") == old, "the old one stays until the switch"
        seconds = repoint_core(site.site, site.host(NODE), database_host=other).data["seconds"]
        assert seconds["core"] < 1.0, "nobody waits for a core's start"
        assert running(site) == before
        assert core(site, policy) == always != "no"
        switched = core(site, "{{.Id}}")
        assert switched != old
        site.shell(NODE, "cd /opt/harbor && (docker compose up -d core || docker-compose up -d core) 2>&1")
        assert core(site, "{{.Id}}") == switched, "compose finds nothing to do"
