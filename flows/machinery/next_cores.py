"""Make Harbor ready for another primary before it is one: every next core runs beside the core that serves."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from blocks import HarborSite
from flows.machinery.operation import Operation
from flows.machinery.traffic import address_of_target, harbor_paths
from flows.rules.silence import quiet
from tasks.harbor import steps as harbor
from tasks.harbor.versions import habits, parse_version
from tasks.step import node_of


@contextmanager
def next_cores(work: Operation, *, answer_s: float = 0.0, but: str = "") -> Iterator[None]:
    """Have every Harbor's next core run beside its old one while the body goes on: clients wait for a core's start.

    The old ones and the proxies are not touched, so nothing has to be fenced yet; the next ones cannot write before
    their database is promoted. A core that does not start on a read-only database is only made. What fails is made
    up for when traffic is opened. Inside of another one it does nothing.

    Args:
        answer_s: how long to wait for their answers, in seconds; that one is late is no failure.
        but: a node whose Harbor is left alone.
    """
    site = work.run.site
    paths = [path for path in harbor_paths(work) if node_of(path) != but]
    if work.preparing or site.failover.repoint != "edit":
        yield
        return
    given: dict[str, Any] = {"database_host": address_of_target(work), "by": work.in_time()}
    step = harbor.stage
    if starts_early(site):
        step, given["answer_s"] = harbor.start_next, answer_s
    work.readied.update(paths)
    with work.run.beside(step, paths, required=False, **given):
        work.preparing = True
        try:
            yield
        finally:
            work.preparing = False


def starts_early(site: HarborSite) -> bool:
    """Tell whether this site's core starts while its database is still a standby."""
    return habits(parse_version(site.harbor.version)).starts_read_only


def may_replace(work: Operation, expected_primary: str) -> bool:
    """Tell whether the first look is reason enough to make Harbor ready for another primary: silence, or it is down.

    Not on its own machine: its server may be started again there, or is fenced, and what is recorded is recorded there
    too. A core that began beside that took a second and a half of it, on a disk that the engine had just written to;
    its Harbor follows when traffic is opened.
    """
    if is_down(work, expected_primary):
        return True
    return work.witnesses is not None and quiet(work.seen.node(expected_primary), work.witnesses)


def made_ready(work: Operation) -> bool:
    """Tell whether Harbor is made ready from the beginning, beside the looks: it is written that it was, and why."""
    return work.record is not None and work.held.staged and may_replace(work, work.held.expected_primary)


def is_down(work: Operation, expected_primary: str) -> bool:
    """Tell whether the primary's machine lives and its server does not."""
    primary = work.seen.node(expected_primary)
    return primary.reachable and primary.server is None and primary.cluster is not None
