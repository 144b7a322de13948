"""Make room in the pair for a second adoption: what the one before it has brought is renamed, and never removed."""

from blocks import HarborSite
from tasks.errors import Refused
from tasks.harbor import migrate
from tasks.harbor.adoption import RETURNED
from tasks.harbor.copied import rename_aside
from tasks.harbor.on_node import harbor_found
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import STATE_DIR


def set_aside(site: HarborSite, source: Host, target: Host) -> Outcome:
    """Rename the pair's database and the note that it was filled, after the old Harbor was put back.

    The site's Harbor must be down on all nodes. Run again it finds nothing to rename. An empty database stays.

    Args:
        site: its database.
        source: the node of the old Harbor.
        target: the pair's primary.

    Raises:
        Refused: no adoption from this node was put back, so that the database is not known to be a copy.
    """
    record = source.read(f"{STATE_DIR}/{harbor_found.ADOPTION}") or b""
    if RETURNED not in record:
        raise Refused(
            f"{source.name} does not say that its Harbor was put back after an adoption.",
            ["Nothing in the pair is renamed -> run `adopt` again, which looks anew."],
        )
    done = []
    name = site.postgres.database
    if migrate.has_tables(site, target):
        done.append(f"database {name} is {rename_aside(site, target, name)} now")
    if source.read(migrate.RECORD) is not None:
        source.run(["mv", "-f", "--", migrate.RECORD, f"{migrate.RECORD}.aside"])
        done.append("the note of the first copy is set aside")
    return changed("; ".join(done)) if done else unchanged("the pair has nothing of it")
