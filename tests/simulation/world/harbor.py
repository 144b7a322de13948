"""Harbor's steps: what each does to a node's Harbor, and when it fails."""

from collections.abc import Callable
from typing import Any

from tasks.errors import HarborHaError
from tasks.harbor.back import JOBS
from tasks.harbor.proof import BY_POLICY, FAILED, OK
from tasks.harbor.web import HarborRefused, HarborUnreachable
from tasks.outcome import Outcome
from tests.simulation.world.here import machine, world
from tests.simulation.world.machines import Harbor
from tests.simulation.world.remote import SimHost

CORE_LIMIT_S = 20.0


def _harbor(host: SimHost) -> Harbor:
    harbor = host.node.harbor
    assert harbor is not None
    return harbor


def stage(site: Any, host: SimHost, *, database_host: str, **_: Any) -> Outcome:
    """Write the new address for the next start; a next core for another one goes."""

    def work() -> bool:
        harbor, name = _harbor(host), world().name_at(database_host)
        changed, harbor.configured = harbor.configured != name, name
        harbor.next = harbor.next if harbor.next == name else None
        return changed

    return Outcome(host.do("stage", work, 90.0), "staged")


def start_next(site: Any, host: SimHost, *, database_host: str, **_: Any) -> Outcome:
    """Start a core for a database that is still a standby, beside the one that serves."""

    def work() -> bool:
        harbor, name = _harbor(host), world().name_at(database_host)
        other = harbor.core != name or not harbor.running
        changed, harbor.configured = other and harbor.next != name, name
        if changed:
            harbor.next = name
            world().moved()
        return changed

    return Outcome(host.do("start the next core", work, 90.0), "the next core starts")


def repoint_core(site: Any, host: SimHost, *, database_host: str, **_: Any) -> Outcome:
    """Write the address and put a core with it in the old one's place; it must answer."""

    def work() -> bool:
        here, harbor, name = world(), _harbor(host), world().name_at(database_host)
        changed = (harbor.configured, harbor.core, harbor.running, harbor.next) != (name, name, True, None)
        harbor.configured = harbor.core = name
        harbor.running, harbor.next = True, None
        here.moved()
        deadline = here.engine.now + CORE_LIMIT_S
        while not (here.nodes[name].primary and here.path(host.name, name)):
            if here.engine.now > deadline:
                raise OSError("core did not answer in time")
            here.engine.sleep(2.0)
        return changed

    return Outcome(host.do("repoint", work, 90.0, 1.0), "core is connected")


def restart_jobservice(site: Any, host: SimHost, *, database_host: str, **_: Any) -> Outcome:
    """Restart jobservice: it asks core for the database when it starts, whatever it is told here."""

    def work() -> bool:
        harbor = _harbor(host)
        changed, harbor.jobs, harbor.next = harbor.jobs != harbor.core, harbor.core, None
        world().moved()
        return changed

    return Outcome(host.do("jobservice", work, 90.0), "restarted jobservice")


def up(site: Any, host: SimHost, **_: Any) -> Outcome:
    """Start all of it."""

    def work() -> bool:
        harbor = _harbor(host)
        changed, harbor.next = not harbor.running or harbor.next is not None, None
        if not harbor.running:
            harbor.start()
            world().moved()
        return changed

    return Outcome(host.do("up", work, 90.0), "runs")


def bring_back(site: Any, host: SimHost, *, database_host: str, **_: Any) -> Outcome:
    """Repoint core, then start the rest but jobservice, which is what it was."""
    steps = [repoint_core(site, host, database_host=database_host), up(site, host)]
    return Outcome(any(step.changed for step in steps), "runs")


def complete(site: Any, host: SimHost, *, database_host: str, **_: Any) -> Outcome:
    """Restart jobservice, whose failure is told and stops nothing, then start what stands still."""
    steps, jobs = [], ""
    try:
        steps.append(restart_jobservice(site, host, database_host=database_host))
    except HarborHaError as error:
        jobs = str(error)
    steps.append(up(site, host))
    return Outcome(any(step.changed for step in steps), "runs", {JOBS: jobs})


def wait_healthy(site: Any, host: SimHost, **_: Any) -> Outcome:
    """Wait until it is healthy."""

    def work() -> bool:
        here, harbor = world(), _harbor(host)
        deadline = here.engine.now + 60
        while not (harbor.running and here.nodes[harbor.core].primary and here.path(host.name, harbor.core)):
            if here.engine.now > deadline:
                raise OSError("unhealthy")
            here.engine.sleep(2.0)
        return False

    return Outcome(host.do("wait healthy", work, 70.0), "healthy")


def write_through_balancer(site: Any, *, timeout: float = 30.0, settle_s: float = 10.0, **_: Any) -> Outcome:
    """See whether a client's write is accepted; Harbor may refuse by policy, as it was told to."""
    here = world()
    here.boundary("before the write through the load balancer")
    deadline, refusing = here.engine.now + timeout, None
    while True:
        said = _client_write()
        if said == OK:
            return Outcome(False, "a write was accepted", {"answer": OK, "why": ""})
        now = here.engine.now
        refusing = (refusing or now) if said == BY_POLICY else None
        if refusing is not None and (now > deadline or now - refusing >= settle_s):
            return Outcome(False, "refused by policy", {"answer": BY_POLICY, "why": "read-only mode"})
        if now > deadline:
            return Outcome(False, "not accepted", {"answer": FAILED, "why": "no answer"})
        here.engine.sleep(1.0)


def _client_write() -> str:
    here = world()
    if here.service(machine().name, "balancer") != "open":
        return FAILED
    for name, node in here.nodes.items():
        if node.harbor is None or name in here.drained or not here.check_up(name):
            continue
        if here.noise.read_only:
            return BY_POLICY
        if here.write("client", name, node.harbor.core):
            return OK
    return FAILED


class SimHarborApi:
    """Stands for `HarborApi` at the load balancer: all that flows ask it for without a step is one write."""

    def __init__(self, endpoint: Any, timeout: float = 10.0) -> None:
        self.timeout = timeout

    def __enter__(self) -> "SimHarborApi":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def probe_write(self) -> float:
        here = world()
        if here.service(machine().name, "balancer") != "open":
            here.engine.sleep(self.timeout)
            raise HarborUnreachable("POST /labels got no answer (timed out).", where="load balancer")
        here.engine.sleep(0.05)
        said = _client_write()
        if said == BY_POLICY:
            raise HarborRefused("POST /labels was answered with 403.", 403, code="DENIED")
        if said == FAILED and any(name not in here.drained and here.check_up(name) for name in here.nodes):
            raise HarborRefused("POST /labels was answered with 500.", 500, where="load balancer")
        if said == FAILED:
            raise HarborUnreachable("POST /labels got no answer (closed).", where="load balancer")
        return 0.05


# By module and function below `tasks`; what is not here runs as it is.
EFFECTS: dict[str, Callable[..., Outcome]] = {
    "harbor.repoint.stage": stage,
    "harbor.repoint.start_next": start_next,
    "harbor.repoint.repoint_core": repoint_core,
    "harbor.repoint.by_prepare": repoint_core,
    "harbor.repoint.restart_jobservice": restart_jobservice,
    "harbor.compose.up": up,
    "harbor.back.bring_back": bring_back,
    "harbor.back.complete": complete,
    "harbor.api.wait_healthy": wait_healthy,
    # The world knows no component that clients do not need.
    "harbor.api.wait_serving": wait_healthy,
    "harbor.proof.write_through_balancer": write_through_balancer,
}
