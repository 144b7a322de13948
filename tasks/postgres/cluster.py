"""The site's first database: created once, recognised ever after by its system identifier."""

import base64
import json

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import PASSFILE, STATE_DIR, Layout, layout_of
from tasks.postgres.on_node import cluster_create, cluster_start, role_login
from tasks.postgres.settings import configuration, host_based_authentication, merged_hba, passfile
from tasks.postgres.sql import execute

_CLUSTER_CREATE = node_program(cluster_create)
_CLUSTER_START = node_program(cluster_start)
_ROLE_LOGIN = node_program(role_login)

_START_S = 60.0


class ClusterNotOurs(HarborHaError):
    """A data directory holds a database that this site did not create."""


def create(site: HarborSite, host: Host) -> Outcome:
    """Create the site's cluster on the node that becomes the first primary; never a second time.

    The intent is written first: a run that was killed in the middle of initdb finds it and knows that the
    half-made directory is its own.

    Raises:
        ClusterNotOurs: the directory holds a database without our record, or the cluster's name is taken,
            or a server runs from its configuration.
    """
    layout = layout_of(site)
    given = {**_names(layout), "site": site.name, "nas_path": site.nas.path.rstrip("/")}
    answer = host.python(_CLUSTER_CREATE, given, timeout=120)
    if answer["state"] == "foreign":
        raise ClusterNotOurs(
            f"{layout.data} holds the database {answer['sysid']}, which this site did not create.",
            where=host.name,
            meaning="It was not touched.",
            remedy="Move it away, or choose another postgres.data_dir, if it may go.",
        )
    if answer["state"] == "taken":
        raise ClusterNotOurs(
            f"There is a cluster {layout.major}/{layout.cluster} already, with its data in {answer['sysid']}.",
            where=host.name,
            meaning="It was not touched.",
            remedy="Choose another name in postgres.cluster.",
        )
    if answer["state"] == "runs":
        raise ClusterNotOurs(
            f"A server runs from {layout.conf}, as process {answer['sysid']}, and {layout.data} holds no database that "
            "this site has made to the end.",
            where=host.name,
            meaning="Its data was moved away, or its creation was cut off. It would have to be set aside; nothing was "
            "touched.",
            remedy=f"Stop it (`systemctl stop {layout.unit}`) if it may go, or put its data back; then run this again.",
        )
    detail = f"cluster {layout.major}/{layout.cluster}, system identifier {answer['sysid']}"
    return (changed if answer["state"] == "created" else unchanged)(detail, sysid=answer["sysid"])


def configure(site: HarborSite, host: Host) -> Outcome:
    """Write settings, host entries and pass file; reload or restart only what changed."""
    layout = layout_of(site)
    existing = host.read(f"{layout.conf}/pg_hba.conf") or b""
    # Byte for byte: what the operator wrote there may be in any encoding.
    text = existing.decode("utf-8", "surrogateescape")
    hba = merged_hba(text, host_based_authentication(site)).encode("utf-8", "surrogateescape")
    owner = "postgres:postgres"
    if existing and existing != hba:
        host.put(f"{layout.conf}/pg_hba.conf.before-harbor-ha", existing, mode=0o640, owner=owner)
    secret = host.put(PASSFILE, passfile(site, host.name), mode=0o600, owner=owner)
    entries = host.put(f"{layout.conf}/pg_hba.conf", hba, mode=0o640, owner=owner)
    settings = host.put(
        f"{layout.conf}/conf.d/10-harbor-ha.conf", configuration(site, host.name), owner=owner
    )
    written = [name for name, did in (("settings", settings), ("hba", entries), ("pass file", secret)) if did]
    return changed(f"wrote {', '.join(written)}") if written else unchanged("settings and hba as configured")


def start(site: HarborSite, host: Host, *, limit_s: float = _START_S) -> Outcome:
    """Start the cluster, or bring a running one to its configuration; proven by an answer to SQL.

    systemd's exit status proves nothing here: Debian's unit hides a failed start.

    Raises:
        HarborHaError: the server did not start; what it logged is in the message.
    """
    layout = layout_of(site)
    payload = {**_names(layout), "limit_s": limit_s}
    answer = host.python(_CLUSTER_START, payload, timeout=limit_s + 10)
    if answer["state"] == "failed":
        raise HarborHaError(
            f"PostgreSQL did not start: {answer['log']}",
            where=host.name,
            meaning="The node has no database server.",
            remedy=f"Read {layout.log} on the node.",
        )
    if answer["state"] == "running":
        return unchanged("PostgreSQL runs with its configuration")
    return changed(f"PostgreSQL {answer['state']}")


def create_roles(site: HarborSite, host: Host) -> Outcome:
    """Create the roles and the databases on the primary, and set passwords that do not match any more."""
    postgres = site.postgres
    rows = execute(
        site,
        host,
        _ROLES,
        application=postgres.application.user,
        application_password=postgres.application.password.get_secret_value(),
        replication=postgres.replication.user,
        replication_password=postgres.replication.password.get_secret_value(),
        rewind=postgres.rewind.user,
        rewind_password=postgres.rewind.password.get_secret_value(),
    )
    made = [row[0] for row in rows if row and row[0]]
    # Harbor makes its schema in an empty database, and notary in its own two; none of them makes the database.
    notary = ("notaryserver", "notarysigner") if "notary" in site.harbor.components else ()
    for name in (postgres.database, *notary):
        if execute(site, host, "SELECT 1 FROM pg_database WHERE datname = :'name'", name=name):
            continue
        execute(
            site,
            host,
            'CREATE DATABASE :"name" OWNER :"owner" TEMPLATE template0 ENCODING \'UTF8\'',
            name=name,
            owner=postgres.application.user,
        )
        made.append(f"database {name}")
    return changed(f"created {', '.join(made)}") if made else unchanged("roles and database are there")


def wrong_passwords(site: HarborSite, host: Host) -> list[str]:
    """Log in as every role over TCP and list those whose password is not the configured one."""
    roles = (site.postgres.application, site.postgres.replication, site.postgres.rewind)
    databases = (site.postgres.database, "postgres", "postgres")
    payload = [
        [role.user, role.password.get_secret_value(), database]
        for role, database in zip(roles, databases, strict=True)
    ]
    port = str(layout_of(site).port)
    refused: list[str] = host.python(_ROLE_LOGIN, {"roles": payload, "port": port, "host": host.address})
    return refused


def set_passwords(site: HarborSite, host: Host) -> Outcome:
    """Bring the passwords of the roles to the configured ones; only those that do not log in are touched."""
    stale = wrong_passwords(site, host)
    for role in (site.postgres.application, site.postgres.replication, site.postgres.rewind):
        if role.user in stale:
            execute(
                site,
                host,
                "ALTER ROLE :\"name\" PASSWORD :'password'",
                name=role.user,
                password=role.password.get_secret_value(),
            )
    return changed(f"set the password of {', '.join(stale)}") if stale else unchanged("all roles log in")


def read_configuration(site: HarborSite, host: Host) -> bytes:
    """Pack the node's configuration directory, for a standby to start from the same."""
    layout = layout_of(site)
    packed = host.run(["sh", "-c", 'tar -C "$1" -cf - . | base64 -w0', "sh", layout.conf])
    return base64.b64decode(packed.stdout)


def _names(layout: Layout) -> dict[str, object]:
    return {
        "major": str(layout.major),
        "cluster": layout.cluster,
        "data": layout.data,
        "conf": layout.conf,
        "bin": layout.bin,
        "port": str(layout.port),
        "unit": layout.unit,
        "record": layout.record,
        "archive": layout.archive,
        "state_dir": STATE_DIR,
        "log": layout.log,
        "limit_s": _START_S,
    }


def as_record(site: str, sysid: str) -> str:
    """Render the record by which a node knows whose database it holds."""
    return json.dumps({"site": site, "system_identifier": sysid}) + "\n"


# The rewind role needs no superuser: these four functions are what pg_rewind reads a source with.
_ROLES = """
SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', :'application', :'application_password')
 WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = :'application') \\gexec
SELECT format('CREATE ROLE %I LOGIN REPLICATION PASSWORD %L', :'replication', :'replication_password')
 WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = :'replication') \\gexec
SELECT NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = :'rewind') AS absent \\gset
SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', :'rewind', :'rewind_password') WHERE :'absent' \\gexec
\\if :absent
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean),
  pg_catalog.pg_stat_file(text, boolean), pg_catalog.pg_read_binary_file(text),
  pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO :"rewind";
SELECT 'roles';
\\endif
"""
