"""Proof by use: an image through the load balancer, back through every node, and its row on the standby."""

import hashlib
import time

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.harbor.api import HarborApi
from tasks.harbor.oci import Registry, make_image, prove
from tasks.harbor.web import HarborRefused, through_balancer, through_node
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.sql import execute

PROJECT = "harbor-ha-proof"
# What became of a client's write.
OK, BY_POLICY, FAILED = "ok", "refused-by-policy", "failed"
# As a superuser in a database where somebody else may have put an operator, or a view for the table: see
# tasks/backup/night/snapshot.py.
_ROW = r"""
SET search_path = pg_catalog;
BEGIN READ ONLY;
LOCK TABLE public.artifact IN ACCESS SHARE MODE;
SELECT pg_relation_filenode('public.artifact'::regclass) IS NOT NULL AS is_table \gset
\if :is_table
SELECT count(*) FROM public.artifact WHERE digest = :'digest';
\endif
COMMIT;
"""


def push_and_pull(site: HarborSite, *, name: str) -> Outcome:
    """Push an image through the load balancer and pull it through every node.

    Args:
        name: what makes the image one of its own; the same name gives the same image, so a second proof
            finds it and changes nothing.

    Raises:
        HarborHaError: it was not accepted, or came back different.
    """
    content = f"{site.name}/{name}".encode()
    repository = f"{PROJECT}/{hashlib.sha256(content).hexdigest()[:12]}"
    digest = make_image(content).digest
    balancer = through_balancer(site)
    with HarborApi(balancer) as api:
        made = api.ensure_project(PROJECT)
    known = not made and _known(site, repository, digest)
    nodes = {node.name: through_node(site, node.name) for node in site.nodes if node.runs_harbor}
    if known:
        for endpoint in nodes.values():
            with Registry(endpoint) as registry:
                registry.pull(repository, digest)
        return unchanged(f"{repository} pulled through {', '.join(nodes)}", digest=digest)
    proof = prove(balancer, nodes, repository, content)
    pulls = ", ".join(f"{node} {seconds:.2f} s" for node, seconds in proof.pull_s.items())
    return changed(f"{repository} pushed in {proof.push_s:.2f} s, pulled through {pulls}", digest=digest)


def found_on_standby(site: HarborSite, standby: Host, *, digest: str, timeout: float = 15.0) -> Outcome:
    """Find the pushed image's row in the standby's copy of the database.

    Args:
        timeout: seconds to wait for the replay.

    Raises:
        HarborHaError: it is not there: Harbor writes to another database than the one that is replicated.
    """
    deadline = time.monotonic() + timeout
    while True:
        rows = execute(site, standby, _ROW, database=site.postgres.database, digest=digest)
        if rows and int(rows[0][0]) > 0:
            return unchanged(f"{digest[:19]}… is in the database of {standby.name}")
        if time.monotonic() > deadline:
            raise HarborHaError(
                f"The row of {digest} is not in {site.postgres.database}.artifact.",
                where=standby.name,
                meaning="Harbor writes to another database than the one that is replicated here.",
                remedy="Compare external_database in harbor.yml with the primary's address.",
            )
        time.sleep(0.2)


def write_through_balancer(site: HarborSite, *, timeout: float = 30.0, settle_s: float = 10.0) -> Outcome:
    """See whether a client's write through the load balancer is accepted, and wait for it.

    It never fails: after a promotion nothing may depend on it. A site in read-only mode ended a switchover there,
    with the old primary stopped and no standby.

    Args:
        timeout: seconds.
        settle_s: seconds for which Harbor must refuse by policy until that counts: a core that has lost its
            database cannot look a user up and answers 401 as well.

    Returns:
        data: `answer` (OK, BY_POLICY: Harbor works and was told not to, FAILED) and `why`.
    """
    started = time.monotonic()
    refusing: float | None = None
    while True:
        try:
            with HarborApi(through_balancer(site), timeout=5.0) as api:
                api.probe_write()
            return unchanged(
                f"a write was accepted after {time.monotonic() - started:.1f} s", answer=OK, why=""
            )
        except HarborHaError as error:
            why = str(error)
            by_policy = isinstance(error, HarborRefused) and error.by_policy
        now = time.monotonic()
        refusing = (refusing or now) if by_policy else None
        late = now - started > timeout
        if refusing is not None and (late or now - refusing >= settle_s):
            return unchanged(f"refused by policy: {why}", answer=BY_POLICY, why=why)
        if late:
            return unchanged(f"not accepted within {timeout:.0f} s: {why}", answer=FAILED, why=why)
        # Harbor makes a user wait for 1.5 s after a wrong password; the rest is asked as often as clients would.
        time.sleep(0.5 if by_policy else 0.1)


def _known(site: HarborSite, repository: str, digest: str) -> bool:
    try:
        with Registry(through_balancer(site)) as registry:
            registry.pull(repository, digest)
    except HarborRefused as refused:
        if refused.status == 404:
            return False
        raise
    return True
