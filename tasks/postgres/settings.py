"""The pair's configuration as text: static and symmetric, so that a role is a file and nothing else.

The same settings stand on every node. Which node is the primary is the absence of `standby.signal`;
`primary_conninfo` points at the peer on both and is not read by a primary.
"""

import ipaddress

from blocks import HarborSite
from tasks.errors import Refused
from tasks.pitr.settings import push_command, uses_repository
from tasks.postgres.layout import (
    PASSFILE,
    PROGRAM_DIR,
    RESTORING,
    database_nodes,
    layout_of,
    peers_of,
    slot_of,
)

HBA_BEGIN = "# BEGIN harbor-ha: written by bootstrap, changes inside are undone"
HBA_END = "# END harbor-ha"
_ARCHIVE_TIMEOUT = "300s"


def configuration(site: HarborSite, node_name: str) -> str:
    """Render conf.d/10-harbor-ha.conf of a node.

    The time-outs of 10 s make the receiver's age a fast witness: with PostgreSQL's 60 s a standby may
    legitimately have heard nothing for 30 s.
    """
    layout = layout_of(site)
    node = site.node(node_name)
    settings: list[tuple[str, str]] = [
        ("listen_addresses", f"{node.address},localhost" if _is_ip(node.address) else "*"),
        ("port", str(layout.port)),
        ("password_encryption", "scram-sha-256"),
        ("wal_level", "replica"),
        ("wal_log_hints", "on"),
        ("full_page_writes", "on"),
        ("hot_standby", "on"),
        ("hot_standby_feedback", "on"),
        ("max_connections", "200"),
        ("max_wal_senders", "10"),
        ("max_replication_slots", "10"),
        ("wal_keep_size", "1GB"),
        # A slot of a lost standby must not fill the primary's disk.
        ("max_slot_wal_keep_size", "8GB"),
        ("wal_sender_timeout", "10s"),
        # How long a dead primary's standby still speaks for it: clients wait for that. It asks after half of the time.
        ("wal_receiver_timeout", "5s"),
        ("wal_receiver_status_interval", "1s"),
        ("wal_retrieve_retry_interval", "1s"),
        ("max_standby_streaming_delay", "30s"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("recovery_target_timeline", "latest"),
        ("archive_mode", "on"),
        # Not `cp`: it is not atomic, and a hanging NAS would hang the shutdown, which waits for the archiver.
        ("archive_command", archive_command(site)),
        # What is not in the bucket when everything is lost is lost: at most so much time.
        *([("archive_timeout", _ARCHIVE_TIMEOUT)] if uses_repository(site) else []),
        ("primary_conninfo", conninfo(site, node_name)),
        ("primary_slot_name", slot_of(node_name)),
    ]
    lines = ["# Written by bootstrap; put your own settings into another file of this directory."]
    lines += [f"{name} = '{text}'" for name, text in settings]
    return "\n".join(lines) + "\n"


def archive_command(site: HarborSite) -> str:
    """Render the shell line that archives one segment: on the node, then in the bucket if the site wants that."""
    local = f"timeout 60 {PROGRAM_DIR}/archive-wal %p {layout_of(site).archive}/%f"
    return f"{local} && {push_command(site)}" if uses_repository(site) else local


def conninfo(site: HarborSite, node_name: str) -> str:
    """Render the connection string with which a node follows its peer."""
    peers = peers_of(site, node_name)
    port = str(layout_of(site).port)
    parts = [
        f"host={','.join(peer.address for peer in peers)}",
        f"port={','.join(port for _ in peers)}",
        f"user={site.postgres.replication.user}",
        f"application_name={slot_of(node_name)}",
        f"passfile={PASSFILE}",
        "sslmode=require",
        "connect_timeout=5",
        "keepalives_idle=5",
        "keepalives_interval=2",
        "keepalives_count=3",
        "tcp_user_timeout=10000",
    ]
    if len(peers) > 1:
        parts.append("target_session_attrs=read-write")
    return " ".join(parts)


def host_based_authentication(site: HarborSite) -> str:
    """Render the block of pg_hba.conf; it is part of the fence: nobody else can write.

    Harbor's containers reach the server of their own node with their address in Harbor's network, and that
    of another node with the node's address. The socket is for restores, which do nothing with a dump as postgres.
    """
    postgres = site.postgres
    lines = ["local   all           postgres      peer"]
    for node in database_nodes(site):
        source = _source(node.address)
        lines.append(f"hostssl replication   {postgres.replication.user}  {source}  scram-sha-256")
        lines.append(f"hostssl postgres      {postgres.rewind.user}  {source}  scram-sha-256")
        lines.append(f"hostssl postgres      {postgres.replication.user}  {source}  scram-sha-256")
    clients = [_source(node.address) for node in site.nodes] + [site.harbor.network]
    databases = ",".join([postgres.database, "notaryserver", "notarysigner"])
    lines.append(f"local   {databases},{RESTORING}  {postgres.application.user}  scram-sha-256")
    lines += [
        f"host    {databases}  {postgres.application.user}  {client}  scram-sha-256" for client in clients
    ]
    return "\n".join([HBA_BEGIN, *lines, HBA_END]) + "\n"


def merged_hba(existing: str, block: str) -> str:
    """Put our block first, since the first match wins, and keep every line that is not ours.

    The distribution's own `host all all 127.0.0.1/32` lines stay: a local administrator expects them.

    Raises:
        Refused: it cannot be told where our block ends; all that came below was lost once.
    """
    lines = existing.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if line.strip() == HBA_BEGIN]
    ends = [number for number, line in enumerate(lines) if line.strip() == HBA_END]
    if not begins and not ends:
        return block + existing
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        raise Refused(
            "pg_hba.conf cannot be changed.",
            [
                f"It has the line `{HBA_BEGIN}` {len(begins)} times and `{HBA_END}` {len(ends)} times, so it cannot be "
                "told which lines are ours. Leave one of each, around the lines that bootstrap wrote, or remove both."
            ],
        )
    return block + "".join(lines[: begins[0]] + lines[ends[0] + 1 :])


def passfile(site: HarborSite, node_name: str) -> str:
    """Render the pass file of a node: how it logs in to its peers. A secret."""
    port = layout_of(site).port
    roles = (site.postgres.replication, site.postgres.rewind)
    return "".join(
        f"{peer.address}:{port}:*:{role.user}:{role.password.get_secret_value()}\n"
        for peer in peers_of(site, node_name)
        for role in roles
    )


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _source(address: str) -> str:
    if not _is_ip(address):
        return address
    return f"{address}/{ipaddress.ip_address(address).max_prefixlen}"
